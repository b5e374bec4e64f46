//! A server of PostgreSQL with pgvector for a test.

use super::Engine;
use postgres::{Client, NoTls};
use std::{
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// The folder of the server's programs; a server is started for the test.
const PROGRAMS: &str = "MM_TEST_POSTGRES_BIN";

/// The address of a server that runs already, with a database whose schemas the user may make.
const ADDRESS: &str = "MM_TEST_POSTGRES";

pub const PASSWORD: &str = "se cret@1";

/// A server, which ends with this value.
pub struct Server {
    /// Up to the name of the database, without parameters.
    address: String,
    own: Option<Own>,
}

/// A server that this test started.
struct Own {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
    process: Child,
}

impl Server {
    /// A server, or none where the environment names none: the test is skipped then.
    pub fn start() -> Option<Self> {
        if let Ok(address) = std::env::var(ADDRESS) {
            return Some(Self { address, own: None });
        }
        Self::start_own()
    }

    /// A server of this test alone.
    pub fn start_own() -> Option<Self> {
        let Some(programs) = std::env::var_os(PROGRAMS).map(PathBuf::from) else {
            eprintln!("skipped: {PROGRAMS} (a folder with initdb and postgres) or {ADDRESS} (an address) is not set");
            return None;
        };
        // In memory, since many tests make a database at the same time.
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        let made = as_user(&programs.join("initdb"))
            .args(["--username=mm", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("--pwfile")
            .arg(folder.path().join("password"))
            .arg("--pgdata")
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let (port, process) = run_at_free_port(&programs, folder.path());
        let password = PASSWORD.replace(' ', "%20").replace('@', "%40");
        let server = Self {
            address: format!("postgres://mm:{password}@127.0.0.1:{port}/postgres"),
            own: Some(Own { programs, folder, port, process }),
        };
        server.wait();
        Some(server)
    }

    fn wait(&self) {
        let started = Instant::now();
        while let Err(error) = Client::connect(&self.address, NoTls) {
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not answer: {error}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills all processes of the server, as a power cut would, and starts it again.
    pub fn crash(&mut self) {
        let own = self.own.as_mut().expect("a server of this test");
        let children = std::fs::read_to_string(own.folder.path().join("data/postmaster.pid")).unwrap();
        let first = children.lines().next().unwrap();
        // SIGQUIT ends all its processes at once, without a checkpoint.
        Command::new("kill").args(["-QUIT", first]).status().unwrap();
        own.process.wait().unwrap();
        own.process = run(&own.programs, own.folder.path(), own.port);
        self.wait();
    }

    /// The address of a schema.
    pub fn address(&self, schema: &str) -> String {
        format!("{}?schema={schema}", self.address)
    }

    /// The address up to the name of the database.
    pub fn base(&self) -> &str {
        &self.address
    }

    /// Where it listens.
    pub fn socket(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.own.as_ref().expect("a server of this test").port).into()
    }

    /// A connection for statements of the test.
    pub fn client(&self) -> Client {
        Client::connect(&self.address, NoTls).unwrap()
    }

    /// A schema that nobody uses; it is dropped with this value.
    pub fn schema(&self) -> Schema {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mm_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Schema { address: self.address.clone(), name }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(own) = &mut self.own {
            own.process.kill().ok();
            own.process.wait().ok();
        }
    }
}

/// Runs the server at a port that nobody uses; at another one where a process took it in between.
fn run_at_free_port(programs: &Path, folder: &Path) -> (u16, Child) {
    let log = || std::fs::read_to_string(folder.join("log")).unwrap_or_default();
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (mut process, started) = (run(programs, folder, port), Instant::now());
        while process.try_wait().unwrap().is_none() {
            if log().contains("ready to accept connections") {
                return (port, process);
            }
            assert!(started.elapsed() < Duration::from_secs(30), "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("the server ends: {}", log());
}

fn run(programs: &Path, folder: &Path, port: u16) -> Child {
    as_user(&programs.join("postgres"))
        .args(["-h", "127.0.0.1", "-k", "", "-p", &port.to_string(), "-c", "max_connections=40"])
        .arg("-D")
        .arg(folder.join("data"))
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap()
}

/// The command of a program of the server, which does not run as the superuser. It ends with the test.
fn as_user(program: &Path) -> Command {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0);
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig", "QUIT"]).arg(program);
    command
}

/// A schema for one store.
pub struct Schema {
    address: String,
    pub name: String,
}

impl Schema {
    pub fn address(&self) -> String {
        format!("{}?schema={}", self.address, self.name)
    }

    /// A connection whose tables are those of the store.
    pub fn client(&self) -> Client {
        let mut client = Client::connect(&self.address, NoTls).unwrap();
        client.batch_execute(&format!("SET search_path TO {}, public", self.name)).unwrap();
        client
    }
}

impl Engine for Schema {
    fn location(&self) -> PathBuf {
        self.address().into()
    }

    fn few_writes(&self) -> Duration {
        Duration::from_millis(1500)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if let Ok(mut client) = Client::connect(&self.address, NoTls) {
            client.batch_execute(&format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name)).ok();
        }
    }
}
