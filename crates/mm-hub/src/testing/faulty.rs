//! A web server on this machine whose connections break.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// How many requests came before.
    pub number: usize,
    pub method: String,
    /// With the query.
    pub path: String,
    /// The first and the last byte that are asked for.
    pub range: Option<(usize, usize)>,
    pub if_match: Option<String>,
}

/// How a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Reset before there is an answer.
    Reset,
    /// Closed after so many bytes of the body.
    Closed(usize),
    /// Reset after so many bytes of the body.
    ResetAfter(usize),
}

/// An answer.
pub(crate) struct Reply {
    pub status: &'static str,
    /// Each ends with a line break. Without `Transfer-Encoding`, `Content-Length` is added.
    pub headers: String,
    pub body: Vec<u8>,
    pub fault: Option<Fault>,
}

impl Reply {
    pub fn new(status: &'static str, headers: &str, body: &[u8]) -> Self {
        Self { status, headers: headers.to_owned(), body: body.to_vec(), fault: None }
    }

    pub fn with(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    /// What a store answers: all of a content, or the range that is asked for.
    pub fn file(request: &Request, e_tag: &str, content: &[u8]) -> Self {
        let headers = format!("ETag: {e_tag}\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n");
        let Some((first, last)) = request.range else { return Self::new("200 OK", &headers, content) };
        let headers = format!("{headers}Content-Range: bytes {first}-{last}/{}\r\n", content.len());
        Self::new("206 Partial Content", &headers, &content[first..=last])
    }
}

/// Serves one request on each connection.
pub(crate) struct Server {
    /// The address, without a slash at the end.
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (answer.clone(), log.clone());
                std::thread::spawn(move || serve(&stream, &log, &*answer));
            }
        });
        Self { url, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Answers the request of a connection, or breaks it. A system resets a connection that is dropped with bytes that nobody
/// has read, so the last byte of the request is read only where it is not to be reset.
fn serve(mut stream: &TcpStream, log: &Mutex<Vec<Request>>, answer: &impl Fn(&Request) -> Reply) -> Option<()> {
    let request = read(stream, log)?;
    let reply = answer(&request);
    let (cut, is_reset) = match reply.fault {
        Some(Fault::Reset) => return None,
        Some(Fault::Closed(length)) => (length, false),
        Some(Fault::ResetAfter(length)) => (length, true),
        None => (reply.body.len(), false),
    };
    if !is_reset {
        stream.read_exact(&mut [0u8]).ok()?;
    }
    let length = format!("Content-Length: {}\r\n", reply.body.len());
    let length = if reply.headers.contains("Transfer-Encoding") { "" } else { &length };
    let head = format!("HTTP/1.1 {}\r\n{}{length}Connection: close\r\n\r\n", reply.status, reply.headers);
    stream.write_all(head.as_bytes()).ok()?;
    if request.method != "HEAD" {
        stream.write_all(&reply.body[..cut]).ok()?;
    }
    Some(())
}

/// Reads a request but for its last byte.
fn read(mut stream: &TcpStream, log: &Mutex<Vec<Request>>) -> Option<Request> {
    let (mut head, mut byte) = (Vec::new(), [0u8; 1]);
    while !head.ends_with(b"\r\n\r") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let body_length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    stream.read_exact(&mut vec![0; body_length]).ok()?;
    let range = header("range").and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    let mut words = head.split(' ').map(ToOwned::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut log = log.lock().unwrap();
    let request = Request { number: log.len(), method, path, range, if_match: header("if-match") };
    log.push(request.clone());
    Some(request)
}
