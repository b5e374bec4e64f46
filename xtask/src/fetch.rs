//! Downloads: over HTTPS with resume, a checksum and a progress bar; what to fetch is asked of the ordinary clients (pip, npm, apt).

use crate::places::program;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A file at an address, with the checksum that its registry tells.
pub struct Remote {
    pub url: String,
    /// `sha256`, `sha512` or `git` (sha1 of a git blob), and the digest in hexadecimal.
    pub checksum: (&'static str, String),
    /// Sent to this host as a bearer token, never to one that it redirects to.
    pub bearer: Option<String>,
    /// How long the connection may say nothing.
    pub stall: Duration,
}

impl Remote {
    /// A file that anyone may have.
    pub fn plain(url: String, checksum: (&'static str, String)) -> Self {
        Self { url, checksum, bearer: None, stall: Duration::from_secs(60) }
    }
}

/// A server's refusal.
#[derive(Debug)]
struct Refused {
    url: String,
    status: u16,
    /// Seconds that it asked to wait.
    after: Option<u64>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: the server answered {}", self.url, self.status)
    }
}

impl std::error::Error for Refused {}

/// The status of a refusal, where an error is one.
pub fn status_of(error: &anyhow::Error) -> Option<u16> {
    error.chain().find_map(|e| e.downcast_ref::<Refused>()).map(|r| r.status)
}

/// Downloads into `file`, going on where an earlier attempt stopped; wrong bytes are thrown away and fetched once more.
pub fn download(remote: &Remote, file: &Path) -> Result<()> {
    if file.exists() && digest(file, remote.checksum.0)? == remote.checksum.1 {
        return Ok(());
    }
    let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", file.display()));
    download_to(remote, file, &beside("partial"), &beside("lock"))
}

/// The same with the places of what is not whole yet and of the lock; a file that is there is taken as whole.
pub fn download_to(remote: &Remote, file: &Path, partial: &Path, lock: &Path) -> Result<()> {
    let folder = file.parent().context("a file without a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    // Another process that fetches the same waits here instead of writing into the same file.
    let held = File::options().create(true).truncate(false).write(true).open(lock)?;
    held.lock()?;
    if file.exists() && digest(file, remote.checksum.0)? == remote.checksum.1 {
        return Ok(());
    }
    let mut last = None;
    for attempt in 0..4 {
        if attempt > 0 {
            std::thread::sleep(remote.stall.min(Duration::from_secs(1)) * (1 << attempt));
        }
        match transfer(remote, partial) {
            Ok(()) => {
                let found = digest(partial, remote.checksum.0)?;
                if found == remote.checksum.1 {
                    std::fs::rename(partial, file)?;
                    return Ok(());
                }
                std::fs::remove_file(partial)?;
                last = Some(anyhow::anyhow!(
                    "{}: its {} is {found}, wanted {}; the bytes were thrown away",
                    remote.url,
                    remote.checksum.0,
                    remote.checksum.1
                ));
            }
            Err(error) => {
                let refused = error.downcast_ref::<Refused>();
                let (status, after) = refused.map_or((0, None), |r| (r.status, r.after));
                last = Some(error);
                // What will not change by asking again.
                if (400..500).contains(&status) && status != 429 && status != 408 {
                    break;
                }
                if let Some(seconds) = after {
                    std::thread::sleep(Duration::from_secs(seconds.min(60)));
                }
            }
        }
    }
    let waiting = if partial.exists() { "; what came so far is kept, and the next run goes on from there" } else { "" };
    Err(last
        .unwrap_or_else(|| anyhow::anyhow!("nothing was tried"))
        .context(format!("{} could not be fetched{waiting}", remote.url)))
}

/// How everything is asked for; a refusal is an answer too.
pub fn agent(patience: Duration) -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("mm-xtask/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(patience.max(Duration::from_secs(1)) * 2))
        .http_status_as_error(false)
        .build()
        .new_agent()
}

fn transfer(remote: &Remote, partial: &Path) -> Result<()> {
    let url = &remote.url;
    let have = std::fs::metadata(partial).map_or(0, |m| m.len());
    let mut request = agent(remote.stall).get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    if let Some(token) = &remote.bearer {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let response = request.call()?;
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let resumed = match status {
        200 => false,
        206 => true,
        // Nothing left to send: the file is whole, or the checksum will tell.
        416 => return Ok(()),
        status => return Err(Refused { url: url.clone(), status, after: header("retry-after") }.into()),
    };
    let length: Option<u64> = header("content-length");
    let begun = if resumed { have } else { 0 };
    let bar = ProgressBar::new(length.unwrap_or(0) + begun);
    bar.set_style(
        ProgressStyle::with_template("{msg:.dim} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message(url.rsplit('/').next().unwrap_or("").chars().take(40).collect::<String>());
    bar.set_position(begun);
    let mut file = File::options().create(true).write(true).append(resumed).truncate(!resumed).open(partial)?;
    // Read in a thread of its own: a connection that falls silent cannot be asked how long it has been.
    let (sender, receiver) = std::sync::mpsc::sync_channel::<std::io::Result<Vec<u8>>>(8);
    let mut reader = response.into_body().into_reader();
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0u8; 1 << 18];
            let read = reader.read(&mut buffer).map(|count| {
                buffer.truncate(count);
                buffer
            });
            let done = read.as_ref().map_or(true, Vec::is_empty);
            if sender.send(read).is_err() || done {
                return;
            }
        }
    });
    let mut got = 0u64;
    loop {
        let bytes = match receiver.recv_timeout(remote.stall) {
            Ok(bytes) => bytes?,
            Err(_) => bail!("{url}: nothing came for {} seconds after {got} bytes", remote.stall.as_secs()),
        };
        if bytes.is_empty() {
            break;
        }
        file.write_all(&bytes)?;
        got += bytes.len() as u64;
        bar.inc(bytes.len() as u64);
    }
    file.sync_all()?;
    bar.finish_and_clear();
    if length.is_some_and(|l| l != got) {
        bail!("{url}: the connection ended after {got} of {} bytes", length.unwrap_or(0));
    }
    Ok(())
}

/// The digest of a file, in hexadecimal.
pub fn digest(file: &Path, kind: &str) -> Result<String> {
    fn over<D: Digest>(mut file: File, mut hasher: D) -> Result<String> {
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        Ok(hasher.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
    let open = File::open(file).with_context(|| file.display().to_string())?;
    match kind {
        "sha512" => over(open, Sha512::new()),
        "git" => {
            let length = open.metadata()?.len();
            over(open, Sha1::new().chain_update(format!("blob {length}\0")))
        }
        _ => over(open, Sha256::new()),
    }
}

fn offline() -> bool {
    std::env::var("MM_OFFLINE").is_ok_and(|v| v == "1")
}

fn asked(mut command: Command, what: &str, other: &str) -> Result<String> {
    if offline() {
        bail!(
            "{what} is not in the cache and MM_OFFLINE=1 forbids fetching it; unset it, or bring the cache folder of a machine that has it"
        );
    }
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).rev().take(4).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("{name} could not find {what}: {}\nIs the network there? {other}", last.join(" / "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The Python that has pip.
pub fn python() -> Result<PathBuf> {
    program(&["python3", "python"]).context("no Python was found; install it (Debian: apt-get install python3-pip)")
}

/// Where a package's wheel (or source archive) lies, as pip finds it with its own settings.
pub fn from_pip(package: &str) -> Result<Remote> {
    let python = python()?;
    let mut command = Command::new(&python);
    command.args([
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--no-deps",
        "--disable-pip-version-check",
        "--report",
        "-",
        package,
    ]);
    // Debian's Python refuses to install into itself; nothing is installed here.
    command.env("PIP_BREAK_SYSTEM_PACKAGES", "1");
    let text = asked(
        command,
        package,
        "Is pip at hand (`python3 -m pip --version`, at least 22.2; Debian: apt-get install python3-pip)?",
    )?;
    let report: serde_json::Value =
        serde_json::from_str(&text).context("pip's report was not understood; pip 22.2 or newer is needed")?;
    let info = &report["install"][0]["download_info"];
    let url = info["url"].as_str().context("pip's report names no file")?.to_owned();
    let hash = info["archive_info"]["hashes"]["sha256"].as_str().map(ToOwned::to_owned);
    let hash = hash.or_else(|| {
        info["archive_info"]["hash"].as_str().and_then(|h| h.strip_prefix("sha256=")).map(ToOwned::to_owned)
    });
    Ok(Remote::plain(url, ("sha256", hash.context("pip's report has no checksum")?)))
}

/// Where an npm package's archive lies.
pub fn from_npm(package: &str) -> Result<Remote> {
    let npm = program(&["npm"]).context("no npm was found; install it (Debian: apt-get install npm), or use the data set tuxpaint-stamps, which needs apt only")?;
    let mut command = Command::new(npm);
    command.args(["view", package, "dist.tarball", "dist.integrity", "--json"]);
    let text = asked(command, package, "Does `npm ping` answer?")?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("npm's answer was not understood")?;
    let answer = answer.as_array().and_then(|a| a.last()).cloned().unwrap_or(answer);
    let url = answer["dist.tarball"].as_str().context("npm names no archive")?.to_owned();
    let integrity =
        answer["dist.integrity"].as_str().and_then(|i| i.strip_prefix("sha512-")).context("npm tells no sha512")?;
    Ok(Remote::plain(url, ("sha512", base64_to_hex(integrity)?)))
}

fn base64_to_hex(text: &str) -> Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0u32, 0, String::new());
    for byte in text.bytes().filter(|b| *b != b'=') {
        let value = ALPHABET.iter().position(|a| *a == byte).context("a checksum that is not base64")?;
        bits = (bits << 6) | u32::try_from(value)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push_str(&format!("{:02x}", (bits >> count) & 0xff));
        }
    }
    Ok(out)
}

/// A Debian package as a file, through apt with lists and cache of its own, so that no root is needed.
pub fn from_apt(package: &str, folder: &Path) -> Result<PathBuf> {
    let apt = program(&["apt-get"]).context("no apt-get was found (this data set is a Debian package); the data set emoji needs npm only, easy-vqa pip only")?;
    if offline() {
        bail!("{package} is not in the cache and MM_OFFLINE=1 forbids fetching it");
    }
    let (state, cache) = (folder.join("apt/state"), folder.join("apt/cache"));
    for path in [state.join("lists/partial"), cache.join("archives/partial")] {
        std::fs::create_dir_all(path)?;
    }
    std::fs::write(state.join("status"), "")?;
    let settings = [
        format!("Dir::State={}", state.display()),
        format!("Dir::State::status={}", state.join("status").display()),
        format!("Dir::Cache={}", cache.display()),
        "APT::Sandbox::User=".to_owned(),
        "Debug::NoLocking=1".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ];
    let run = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(&apt);
        for setting in &settings {
            command.args(["-o", setting]);
        }
        let status = command.args(arguments).current_dir(folder).stdout(std::process::Stdio::null()).status()?;
        if !status.success() {
            bail!(
                "apt-get {} failed; is the network there, and does /etc/apt name a Debian mirror?",
                arguments.join(" ")
            );
        }
        Ok(())
    };
    let packaged = |folder: &Path| -> Option<PathBuf> {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "deb"))
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("{package}_"))))
            .collect();
        found.sort();
        found.pop()
    };
    if let Some(found) = packaged(folder) {
        return Ok(found);
    }
    eprintln!("apt-get update, with lists of its own …");
    run(&["update", "-qq"])?;
    eprintln!("apt-get download {package} …");
    // apt checks the package against the signed lists itself, and goes on where it stopped.
    run(&["download", package])?;
    packaged(folder).with_context(|| format!("apt-get downloaded no {package}"))
}

/// Unpacks a Debian package into a folder.
pub fn unpack_deb(deb: &Path, folder: &Path) -> Result<()> {
    let dpkg = program(&["dpkg-deb"])
        .context("no dpkg-deb was found, which unpacks Debian packages (Debian: it is in the package dpkg)")?;
    if !Command::new(dpkg).arg("-x").arg(deb).arg(folder).status()?.success() {
        // A file that was cut short is fetched again by the next run.
        let _ = std::fs::remove_file(deb);
        bail!("{} could not be unpacked; run the command again to fetch it anew", deb.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::TcpListener,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    /// A server on this machine that answers each request in its own way, by number.
    fn serve(
        answer: impl Fn(usize, Option<usize>) -> (String, Vec<u8>) + Send + 'static,
        most: usize,
    ) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file.bin", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(most) {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut byte = [0u8; 1];
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&request).to_lowercase();
                let from =
                    text.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()).and_then(|n| n.parse().ok());
                let (head, body) = answer(count.fetch_add(1, Ordering::SeqCst), from);
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&body);
            }
        });
        (address, asked)
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn a_connection_that_is_cut_goes_on_where_it_stopped() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let whole = bytes.clone();
        let (url, asked) = serve(
            move |number, from| {
                let from = from.unwrap_or(0);
                let rest = &whole[from..];
                let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
                // The first answer promises everything and sends a third.
                (head, if number == 0 { rest[..rest.len() / 3].to_vec() } else { rest.to_vec() })
            },
            8,
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.bin");
        let remote = Remote::plain(url, ("sha256", sha256(&bytes)));
        download(&remote, &file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        // Whole already: nobody is asked again.
        download(&remote, &file).unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn wrong_bytes_are_thrown_away_and_a_refusal_is_told() {
        let (url, _) = serve(
            |_, _| ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n".into(), b"bad".to_vec()),
            8,
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.bin");
        let text = format!("{:#}", download(&Remote::plain(url, ("sha256", sha256(b"good"))), &file).unwrap_err());
        assert!(text.contains("its sha256 is") && !file.exists(), "{text}");
        assert!(!folder.path().join("file.bin.partial").exists());
        let (url, _) = serve(
            |_, _| ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(), Vec::new()),
            8,
        );
        let text = format!("{:#}", download(&Remote::plain(url, ("sha256", sha256(b"good"))), &file).unwrap_err());
        assert!(text.contains("answered 404"), "{text}");
    }

    #[test]
    fn npms_checksums_are_read() {
        assert_eq!(base64_to_hex("SGVsbG8=").unwrap(), "48656c6c6f");
        assert!(base64_to_hex("*").is_err());
    }
}
