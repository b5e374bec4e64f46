//! Tests with servers of this machine and answers of DNS that are made up.

mod budget;
mod hostile;
mod http;
mod limits;
mod redirects;
mod server;

use super::{FetchLimits, Fetcher, dial::Lookup, error::FetchError, fetcher::Policy};
use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The file of most tests.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR and more";

/// What every host resolves to where a test says nothing else.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const LIMITS: FetchLimits = FetchLimits { bytes: 1000, time: Duration::from_secs(20), redirects: 3 };

/// Answers in the order given, then the last one again and again; it counts the questions.
#[derive(Debug, Clone)]
struct Answers {
    left: Arc<Mutex<VecDeque<Vec<IpAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl Answers {
    fn new(answers: &[&[IpAddr]]) -> Self {
        let left = answers.iter().map(|answer| answer.to_vec()).collect();
        Self { left: Arc::new(Mutex::new(left)), asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Answers {
    fn lookup(&self, host: &str, _: Duration) -> io::Result<Vec<IpAddr>> {
        assert!(!host.ends_with('.') && host.is_ascii(), "{host}");
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut left = self.left.lock().unwrap();
        if left.len() > 1 { Ok(left.pop_front().unwrap()) } else { Ok(left[0].clone()) }
    }
}

/// A fetcher from example.org and the subdomains of cdn.example.org.
fn fetcher(limits: FetchLimits, ports: &[u16], allow_address: fn(IpAddr) -> bool, answers: &Answers) -> Fetcher {
    let allowed = ["example.org", "*.cdn.example.org", "bücher.example"].map(|domain| domain.parse().unwrap());
    let policy = Policy { allow_address, ports: ports.to_vec() };
    Fetcher::for_test(allowed.to_vec(), limits, policy, Box::new(answers.clone()))
}

/// A fetcher that reaches a server of this machine as example.org.
fn local(limits: FetchLimits, port: u16) -> Fetcher {
    fetcher(limits, &[port], |address| address == LOOPBACK, &Answers::new(&[&[LOOPBACK]]))
}

/// Fails unless an error is the variant of that name, and shows nothing that it must not.
#[track_caller]
fn assert_error(error: &FetchError, variant: &str, what: &str) {
    let name = format!("{error:?}");
    assert!(name.starts_with(variant), "{what}: expected {variant}, found {name}");
    let message = error.to_string();
    for hidden in ["SECRET", "127.0.0", "169.254", "10.0.0", "::1", "fd00"] {
        assert!(!message.contains(hidden), "{what}: {message}");
    }
    assert!(message.len() < 500 && !message.contains(['\n', '\r', '\t']), "{what}: {message:?}");
}
