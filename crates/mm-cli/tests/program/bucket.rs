//! A server on this machine that speaks as much of S3 and of Google's storage as mm needs, and fails now and then, refuses, and lies.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Serves the files of a folder as a bucket, path-style: `/bucket/KEY`.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) requests: Arc<Requests>,
}

#[derive(Default)]
pub(crate) struct Requests {
    all: AtomicUsize,
    /// Whole files.
    pub(crate) downloads: AtomicUsize,
    pub(crate) parts: AtomicUsize,
    pub(crate) uploaded_parts: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    /// Whether the next answer with a file below `slow` ends in the middle.
    pub(crate) stalls: AtomicBool,
    pub(crate) stalled: AtomicUsize,
}

impl Server {
    /// One of so many requests is answered with an error that goes away.
    pub(crate) fn start(folder: &Path, fail_every: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Requests::default());
        let (folder, counted) = (folder.to_owned(), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, counted) = (folder.clone(), counted.clone());
                std::thread::spawn(move || while answer(&stream, &folder, &counted, fail_every).is_some() {});
            }
        });
        Self { address, requests }
    }

    pub(crate) fn mm(&self, arguments: &[&str], folder: &Path) -> Output {
        self.mm_with(arguments, folder, &[])
    }

    pub(crate) fn mm_with(&self, arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Output {
        self.command(arguments, folder, variables).output().unwrap()
    }

    /// mm, to which this is S3, Google's storage and the hub.
    pub(crate) fn command(&self, arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Command {
        let endpoint = format!("http://{}", self.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_mm"));
        command
            .args(arguments)
            .current_dir(folder)
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .env("NO_PROXY", "127.0.0.1")
            .env("STORAGE_EMULATOR_HOST", &endpoint)
            .envs([("AWS_ENDPOINT_URL", endpoint.as_str()), ("HF_ENDPOINT", &endpoint), ("AWS_ALLOW_HTTP", "true")])
            .envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "us-east-1")])
            .envs(variables.iter().copied());
        command
    }
}

/// Answers a request; none when the client has gone.
fn answer(mut stream: &TcpStream, folder: &Path, counted: &Requests, fail_every: usize) -> Option<()> {
    let request = Request::read(stream)?;
    let number = counted.all.fetch_add(1, Ordering::SeqCst) + 1;
    let Reply { status, headers, body } = if number.is_multiple_of(fail_every) {
        counted.failed.fetch_add(1, Ordering::SeqCst);
        Reply::status(if number.is_multiple_of(2) { "503 Slow Down" } else { "500 Internal Server Error" })
    } else {
        reply(&request, folder, counted)
    };
    let states_length = ["Content-Length", "Transfer-Encoding"].iter().any(|name| headers.contains(name));
    let length = if states_length { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    stream.write_all(format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n").as_bytes()).ok()?;
    if request.path.starts_with("/bucket/slow/") && body.len() > 10_000 && counted.stalls.swap(false, Ordering::SeqCst)
    {
        stream.write_all(&body[..body.len() / 2]).ok()?;
        counted.stalled.fetch_add(1, Ordering::SeqCst);
        // Until the client has gone.
        return (stream.read(&mut [0u8]).ok()? > 0).then_some(());
    }
    if request.method == "HEAD" { Some(()) } else { stream.write_all(&body).ok() }
}

struct Request {
    method: String,
    path: String,
    query: String,
    /// Whether it is to write only what is not there.
    is_new: bool,
    /// The ETag of what the client has.
    known: Option<String>,
    /// The first and the last byte that are asked for.
    range: Option<(usize, usize)>,
    body: Vec<u8>,
}

impl Request {
    fn read(mut stream: &TcpStream) -> Option<Self> {
        let (mut head, mut byte) = (Vec::new(), [0u8; 1]);
        while !head.ends_with(b"\r\n\r\n") {
            (stream.read(&mut byte).ok()? == 1).then(|| head.push(byte[0]))?;
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let lowercase = head.to_lowercase();
        let length = lowercase.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).ok()?;
        let mut words = head.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let is_new =
            ["if-none-match: *", "x-goog-if-generation-match: 0"].iter().any(|header| lowercase.contains(header));
        let path = percent_encoding::percent_decode_str(path).decode_utf8().ok()?.into_owned();
        let range = lowercase.lines().find_map(|line| line.strip_prefix("range: bytes="));
        let range = range.and_then(|range| range.trim().split_once('-'));
        let range = range.and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let known = lowercase.lines().find_map(|line| line.strip_prefix("if-none-match: ")).map(ToOwned::to_owned);
        Some(Self { method, path, query: query.to_owned(), is_new, known, range, body })
    }
}

struct Reply {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

impl Reply {
    fn status(status: &'static str) -> Self {
        Self { status, headers: String::new(), body: Vec::new() }
    }

    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: "200 OK", headers: String::new(), body: body.into() }
    }

    fn with(self, headers: &str) -> Self {
        Self { headers: headers.to_owned(), ..self }
    }
}

fn reply(request: &Request, folder: &Path, counted: &Requests) -> Reply {
    let Request { method, path, query, .. } = request;
    match (method.as_str(), path.as_str()) {
        ("POST", "/bucket") if query.starts_with("delete") => return delete(request, folder),
        ("GET", "/bucket") => return list(query, folder),
        _ => {}
    }
    if let Some(key) = path.strip_prefix("/bucket/whole/") {
        // As a server that sends no parts.
        return get(method, None, &folder.join(key), counted);
    }
    if let Some(key) = path.strip_prefix("/bucket/chunked/") {
        return chunked(request, &folder.join(key), counted);
    }
    let key = path.strip_prefix("/bucket/").or_else(|| path.strip_prefix("/datasets/org/name/resolve/main/"));
    let fixed = "ETag: \"1\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
    match (method.as_str(), key) {
        (_, None) => Reply::status("404 Not Found"),
        (_, Some(key)) if key.starts_with("secret") => Reply::status("403 Forbidden"),
        (_, Some("loop.csv")) => Reply::status("302 Found").with("Location: /bucket/loop.csv\r\n"),
        ("HEAD", Some("lying.csv")) => Reply::ok("").with(&format!("{fixed}Content-Length: 40\r\n")),
        (_, Some("lying.csv")) => Reply::ok("text\na dog\n").with(fixed),
        ("POST", Some(key)) => multipart(request, key, folder),
        ("PUT", Some(key)) if query.contains("uploadId=") => {
            counted.uploaded_parts.fetch_add(1, Ordering::SeqCst);
            std::fs::write(folder.join(part_name(query)), &request.body).unwrap();
            Reply::ok("").with(&format!("ETag: \"{}\"\r\n", key.len()))
        }
        ("PUT", Some(key)) => put(request, &folder.join(key)),
        ("DELETE", Some(key)) => {
            let _ = std::fs::remove_file(folder.join(key));
            Reply::ok("")
        }
        (_, Some(key)) => get(method, request.range, &folder.join(key), counted),
    }
}

fn get(method: &str, range: Option<(usize, usize)>, path: &Path, counted: &Requests) -> Reply {
    let Ok(bytes) = std::fs::read(path) else { return Reply::status("404 Not Found") };
    let Ok(modified) = path.metadata().and_then(|m| m.modified()) else { return Reply::status("404 Not Found") };
    let (tag, date) = (blake3::hash(&bytes).to_hex(), httpdate::fmt_http_date(modified));
    let fixed = format!("ETag: \"{tag}\"\r\nLast-Modified: {date}\r\n");
    if let Some((first, last)) = range {
        counted.parts.fetch_add(1, Ordering::SeqCst);
        let headers = format!("{fixed}Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
        return Reply { status: "206 Partial Content", headers, body: bytes[first..=last].to_vec() };
    }
    if method == "GET" {
        counted.downloads.fetch_add(1, Ordering::SeqCst);
    }
    Reply::ok(bytes).with(&fixed)
}

/// As a server that makes its answers while it sends them, and states no size.
fn chunked(request: &Request, path: &Path, counted: &Requests) -> Reply {
    let Ok(bytes) = std::fs::read(path) else { return Reply::status("404 Not Found") };
    let tag = format!("\"{}\"", blake3::hash(&bytes).to_hex());
    if request.known.as_ref() == Some(&tag) {
        return Reply::status("304 Not Modified");
    }
    if request.method == "GET" {
        counted.downloads.fetch_add(1, Ordering::SeqCst);
    }
    let mut body = Vec::new();
    for chunk in bytes.chunks(1000) {
        body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        body.extend(chunk);
        body.extend(b"\r\n");
    }
    body.extend(b"0\r\n\r\n");
    Reply::ok(body).with(&format!("ETag: {tag}\r\nTransfer-Encoding: chunked\r\n"))
}

/// The file of a part that is being uploaded.
fn part_name(query: &str) -> String {
    let number = query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).unwrap();
    format!("part-{number}.uploading")
}

/// Begins an upload in parts, or ends it; one at a time.
fn multipart(request: &Request, key: &str, folder: &Path) -> Reply {
    if request.query == "uploads" || request.query == "uploads=" {
        let ids = format!("<Bucket>bucket</Bucket><Key>{key}</Key><UploadId>1</UploadId>");
        return Reply::ok(format!("<InitiateMultipartUploadResult>{ids}</InitiateMultipartUploadResult>"));
    }
    let text = String::from_utf8_lossy(&request.body);
    let numbers = text.split("<PartNumber>").skip(1).filter_map(|rest| rest.split("</PartNumber>").next());
    let mut content = Vec::new();
    for number in numbers {
        let part = folder.join(part_name(&format!("partNumber={number}")));
        content.extend(std::fs::read(&part).unwrap());
        std::fs::remove_file(part).unwrap();
    }
    std::fs::create_dir_all(folder.join(key).parent().unwrap()).unwrap();
    std::fs::write(folder.join(key), content).unwrap();
    let ids = format!("<Bucket>bucket</Bucket><Key>{key}</Key><ETag>1</ETag>");
    Reply::ok(format!("<CompleteMultipartUploadResult>{ids}</CompleteMultipartUploadResult>"))
}

/// Complete or absent, as S3.
fn put(request: &Request, path: &Path) -> Reply {
    static WRITES: Mutex<()> = Mutex::new(());
    let _guard = WRITES.lock().unwrap();
    if request.is_new && path.exists() {
        return Reply::status("412 Precondition Failed");
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path.with_extension("part"), &request.body).unwrap();
    std::fs::rename(path.with_extension("part"), path).unwrap();
    Reply::ok("").with("ETag: \"1\"\r\nx-goog-generation: 1\r\n")
}

/// `DeleteObjects`.
fn delete(request: &Request, folder: &Path) -> Reply {
    let text = String::from_utf8_lossy(&request.body);
    let mut deleted = String::new();
    for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
        let _ = std::fs::remove_file(folder.join(key));
        deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
    }
    Reply::ok(format!("<DeleteResult>{deleted}</DeleteResult>"))
}

/// `ListObjectsV2` of the files below a prefix: directly below it, or all.
fn list(query: &str, folder: &Path) -> Reply {
    let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or("");
    let prefix = percent_encoding::percent_decode_str(prefix).decode_utf8().unwrap().into_owned();
    if prefix.starts_with("secret") {
        return Reply::status("403 Forbidden");
    }
    let mut contents = String::new();
    // Names that lead out of the folder that is asked for.
    match prefix.as_str() {
        "evil/" => contents += &listed("evil/../../x", b""),
        "outside/" => contents += &listed("other/x", b""),
        _ => {}
    }
    let mut folders = vec![prefix];
    while let Some(below) = folders.pop() {
        for entry in std::fs::read_dir(folder.join(&below)).into_iter().flatten().flatten() {
            let key = format!("{below}{}", entry.file_name().to_string_lossy());
            if !entry.path().is_dir() {
                contents += &listed(&key, &std::fs::read(entry.path()).unwrap_or_default());
            } else if !query.contains("delimiter=") {
                folders.push(format!("{key}/"));
            }
        }
    }
    Reply::ok(format!(
        "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    ))
}

fn listed(key: &str, content: &[u8]) -> String {
    let (tag, size) = (blake3::hash(content).to_hex(), content.len());
    format!(
        "<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:00Z</LastModified><ETag>&quot;{tag}&quot;</ETag>\
         <Size>{size}</Size></Contents>"
    )
}
