//! A web server on this machine, archives, and what was reported, for tests.

#[cfg(feature = "storage")]
pub(crate) mod faulty;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What this process has written on standard error.
static NOTES: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(crate) fn record(text: &impl std::fmt::Display) {
    NOTES.lock().unwrap().push(text.to_string());
}

/// The further attempts that were reported, of those whose address contains a text.
pub(crate) fn reported_attempts(address: &str) -> Vec<String> {
    let is_one = |note: &&String| note.contains(address) && note.contains("; trying again in ");
    NOTES.lock().unwrap().iter().filter(is_one).cloned().collect()
}

/// Serves files by name.
pub(crate) struct Server {
    /// The address, without a slash at the end.
    pub(crate) url: String,
    requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(files: &[(&str, &[u8])]) -> Self {
        let files: Vec<(String, Vec<u8>)> = files.iter().map(|(n, b)| (format!("/{n}"), b.to_vec())).collect();
        Self::answering(move |_, path| {
            let found = files.iter().find(|(name, _)| name == path);
            found.map_or(("404 Not Found", "", Vec::new()), |(_, bytes)| ("200 OK", "", bytes.clone()))
        })
    }

    /// A server whose answers (status, headers, body) depend on how many requests came before, and on the path.
    pub(crate) fn answering(
        answer: impl Fn(usize, &str) -> (&'static str, &'static str, Vec<u8>) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let count = requests.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (mut request, mut byte) = (Vec::new(), [0u8; 1]);
                while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    request.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let path = text.split_whitespace().nth(1).unwrap_or("");
                let (status, headers, body) = answer(count.fetch_add(1, Ordering::SeqCst), path);
                let length = body.len();
                let head =
                    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
                let _ = stream.write_all(head.as_bytes());
                if !text.starts_with("HEAD") {
                    let _ = stream.write_all(&body);
                }
            }
        });
        Self { url, requests }
    }

    /// The number of requests so far.
    pub(crate) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A .tar.gz of files, whose paths may be anything.
pub(crate) fn tar_gz(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(contents.len() as u64);
        header.set_cksum();
        builder.append(&header, *contents).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}
