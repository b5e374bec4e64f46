//! A server of this machine that counts connections.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a probe sends instead of a request.
const PROBE: &[u8] = b"PROBE\r\n\r\n";

pub(super) struct Server {
    pub(super) port: u16,
    address: String,
    accepted: Arc<AtomicUsize>,
    probes: AtomicUsize,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server whose answers a function writes; it gets the path of the request.
    pub(super) fn new(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answer)
    }

    /// The same at an address.
    pub(super) fn at(address: &str, answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, kept, answer) = (accepted.clone(), requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || {
                    let request = read_head(&mut stream);
                    if request == PROBE {
                        let _ = stream.write_all(b"!");
                        return;
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                    kept.lock().unwrap().push(text);
                    answer(&path, &mut stream);
                });
            }
        });
        Self { port: address.port(), address: address.to_string(), accepted, probes: AtomicUsize::new(0), requests }
    }

    /// A server that no one may reach.
    pub(super) fn victim() -> Self {
        Self::new(|_, stream| write(stream, &ok(super::PNG)))
    }

    /// How many connections there were. Connections are accepted in order, so one more shows that all were counted.
    pub(super) fn connections(&self) -> usize {
        let mut probe = TcpStream::connect(&self.address).unwrap();
        probe.write_all(PROBE).unwrap();
        probe.read_exact(&mut [0]).unwrap();
        self.accepted.load(Ordering::SeqCst) - 1 - self.probes.fetch_add(1, Ordering::SeqCst)
    }

    /// The heads of all requests.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut TcpStream) -> Vec<u8> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
        // The start of a TLS handshake is no request, and no one waits for its end.
        if head[0] == 0x16 && head.len() == 5 {
            let mut rest = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            let _ = stream.read_exact(&mut rest);
            head.extend(rest);
            break;
        }
    }
    head
}

/// Sends bytes; a client that has enough closes the connection.
pub(super) fn write(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes);
}

/// Sends bytes one by one, slowly, until the client goes.
pub(super) fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Sends the same bytes until the client goes.
pub(super) fn repeat(stream: &mut TcpStream, bytes: &[u8]) {
    let many = bytes.repeat(1 + 4096 / bytes.len());
    while stream.write_all(&many).is_ok() {}
}

/// An answer with a file.
pub(super) fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("Content-Length: {}", body.len()), body)
}

/// An answer with one header or more.
pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n").as_bytes(), body].concat()
}
