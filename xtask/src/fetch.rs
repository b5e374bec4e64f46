//! Downloads over HTTPS, with resumption, checksums and a progress bar.

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// A file to download, with the checksum that its registry states.
pub struct Remote {
    pub url: String,
    /// `sha256`, `sha512` or `git` (SHA-1 of a git blob), and the digest in hexadecimal.
    pub checksum: (&'static str, String),
    /// A bearer token, sent to the host of `url` but not to hosts that it redirects to.
    pub bearer: Option<String>,
    /// Time without data after which the connection is given up.
    pub timeout: Duration,
}

impl Remote {
    /// A public file.
    pub fn public(url: String, checksum: (&'static str, String)) -> Self {
        Self { url, checksum, bearer: None, timeout: Duration::from_secs(60) }
    }
}

/// An error status of a server.
#[derive(Debug)]
struct StatusError {
    url: String,
    status: u16,
    /// Seconds to wait, from the header `Retry-After`.
    retry_after: Option<u64>,
}

impl std::fmt::Display for StatusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: the server answered {}", self.url, self.status)
    }
}

impl std::error::Error for StatusError {}

/// The HTTP status, if the error is one of a server.
pub fn status_of(error: &anyhow::Error) -> Option<u16> {
    error.chain().find_map(|e| e.downcast_ref::<StatusError>()).map(|r| r.status)
}

/// Downloads to `file`, resuming an earlier attempt. A file with a wrong checksum is deleted and downloaded again.
pub fn download(remote: &Remote, file: &Path) -> Result<()> {
    if file.exists() && digest(file, remote.checksum.0)? == remote.checksum.1 {
        return Ok(());
    }
    let with_suffix = |suffix: &str| PathBuf::from(format!("{}.{suffix}", file.display()));
    download_to(remote, file, &with_suffix("partial"), &with_suffix("lock"))
}

/// Like [`download`], with the paths of the incomplete file and of the lock.
pub fn download_to(remote: &Remote, file: &Path, partial: &Path, lock: &Path) -> Result<()> {
    let folder = file.parent().context("the path has no parent folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    // A second process waits here instead of writing to the same file.
    let waiting = format!("another process downloads {}; waiting for it …", file.display());
    let _lock = crate::paths::lock(lock, &waiting)?;
    if file.exists() && digest(file, remote.checksum.0)? == remote.checksum.1 {
        return Ok(());
    }
    let mut last = None;
    for attempt in 0..4 {
        if attempt > 0 {
            std::thread::sleep(remote.timeout.min(Duration::from_secs(1)) * (1 << attempt));
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
                    "{}: its {} is {found}, expected {}; the download was deleted",
                    remote.url,
                    remote.checksum.0,
                    remote.checksum.1
                ));
            }
            Err(error) => {
                let status_error = error.downcast_ref::<StatusError>();
                let (status, retry_after) = status_error.map_or((0, None), |e| (e.status, e.retry_after));
                last = Some(error);
                // Client errors do not go away by trying again.
                if (400..500).contains(&status) && status != 429 && status != 408 {
                    break;
                }
                if let Some(seconds) = retry_after {
                    std::thread::sleep(Duration::from_secs(seconds.min(60)));
                }
            }
        }
    }
    let note = if partial.exists() { "; the next run resumes this download" } else { "" };
    Err(last
        .unwrap_or_else(|| anyhow::anyhow!("no attempt was made"))
        .context(format!("{} could not be downloaded{note}", remote.url)))
}

/// The HTTP client; error statuses are returned as responses.
pub fn agent(timeout: Duration) -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("mm-xtask/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(timeout.max(Duration::from_secs(1)) * 2))
        .http_status_as_error(false)
        .build()
        .new_agent()
}

/// Makes one attempt to download the rest of a file.
fn transfer(remote: &Remote, partial: &Path) -> Result<()> {
    let url = &remote.url;
    let existing = std::fs::metadata(partial).map_or(0, |m| m.len());
    let mut request = agent(remote.timeout).get(url);
    if existing > 0 {
        request = request.header("Range", format!("bytes={existing}-"));
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
        // There is nothing left to send; the checksum shows whether the file is complete.
        416 => return Ok(()),
        status => return Err(StatusError { url: url.clone(), status, retry_after: header("retry-after") }.into()),
    };
    let length: Option<u64> = header("content-length");
    let start = if resumed { existing } else { 0 };
    let bar = ProgressBar::new(length.unwrap_or(0) + start);
    bar.set_style(
        ProgressStyle::with_template("{msg:.dim} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message(url.rsplit('/').next().unwrap_or("").chars().take(40).collect::<String>());
    bar.set_position(start);
    let mut file = File::options().create(true).write(true).append(resumed).truncate(!resumed).open(partial)?;
    // A thread reads the body, so that a stalled connection can be detected.
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
    let mut received = 0u64;
    loop {
        let bytes = match receiver.recv_timeout(remote.timeout) {
            Ok(bytes) => bytes?,
            Err(_) => bail!("{url}: no data for {} seconds after {received} bytes", remote.timeout.as_secs()),
        };
        if bytes.is_empty() {
            break;
        }
        file.write_all(&bytes)?;
        received += bytes.len() as u64;
        bar.inc(bytes.len() as u64);
    }
    file.sync_all()?;
    bar.finish_and_clear();
    if length.is_some_and(|l| l != received) {
        bail!("{url}: the connection ended after {received} of {} bytes", length.unwrap_or(0));
    }
    Ok(())
}

/// The digest of a file, in hexadecimal.
pub fn digest(file: &Path, kind: &str) -> Result<String> {
    fn hash<D: Digest>(mut file: File, mut hasher: D) -> Result<String> {
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
        "sha512" => hash(open, Sha512::new()),
        "git" => {
            let length = open.metadata()?.len();
            hash(open, Sha1::new().chain_update(format!("blob {length}\0")))
        }
        _ => hash(open, Sha256::new()),
    }
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

    /// A server on this machine; `answer` gets the index of each request and the start of its range.
    fn serve(
        answer: impl Fn(usize, Option<usize>) -> (String, Vec<u8>) + Send + 'static,
        max_requests: usize,
    ) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file.bin", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().take(max_requests) {
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
        (address, requests)
    }

    fn sha256(bytes: &[u8]) -> String {
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn an_interrupted_download_is_resumed() {
        let bytes: Vec<u8> = (0..100_000u32).map(|i| (i * 7 % 251) as u8).collect();
        let complete = bytes.clone();
        let (url, requests) = serve(
            move |number, from| {
                let from = from.unwrap_or(0);
                let rest = &complete[from..];
                let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
                // The first response announces everything and sends a third.
                (head, if number == 0 { rest[..rest.len() / 3].to_vec() } else { rest.to_vec() })
            },
            8,
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.bin");
        let remote = Remote::public(url, ("sha256", sha256(&bytes)));
        download(&remote, &file).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), bytes);
        assert_eq!(requests.load(Ordering::SeqCst), 2);
        // The file is complete: no further request is made.
        download(&remote, &file).unwrap();
        assert_eq!(requests.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn wrong_checksums_and_error_statuses_are_errors() {
        let (url, _) = serve(
            |_, _| ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n".into(), b"bad".to_vec()),
            8,
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file.bin");
        let text = format!("{:#}", download(&Remote::public(url, ("sha256", sha256(b"good"))), &file).unwrap_err());
        assert!(text.contains("its sha256 is") && !file.exists(), "{text}");
        assert!(!folder.path().join("file.bin.partial").exists());
        let (url, _) = serve(
            |_, _| ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into(), Vec::new()),
            8,
        );
        let text = format!("{:#}", download(&Remote::public(url, ("sha256", sha256(b"good"))), &file).unwrap_err());
        assert!(text.contains("answered 404"), "{text}");
    }
}
