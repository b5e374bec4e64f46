//! A server of which one answer in twenty fails: every byte arrives, and each failure is reported.

use super::*;
use crate::testing::{faulty::Fault, reported_attempts};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Numbers that follow from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.next() as usize % limit
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(length).collect()
    }
}

/// Files by key: with an ETag and parts, with neither, and without a size.
fn files(random: &mut Random) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for (kind, count) in [("stored", 60), ("plain", 20), ("unsized", 20)] {
        for number in 0..count {
            let length = random.below(100_000);
            files.insert(format!("{kind}/{number}.bin"), random.bytes(length));
        }
    }
    files.insert("stored/empty.bin".to_owned(), Vec::new());
    // Three parts.
    files.insert("stored/large.bin".to_owned(), random.bytes((33 << 20) + 5));
    files
}

fn reply(request: &Request, files: &BTreeMap<String, Vec<u8>>) -> Reply {
    let key = request.path.splitn(3, '/').nth(2).unwrap_or_default();
    let Some(content) = files.get(key) else { return Reply::new("404 Not Found", "", b"") };
    match key.split('/').next() {
        Some("plain") => Reply::new("200 OK", "", content),
        Some("unsized") => {
            let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
            let chunks: Vec<u8> = content.chunks(5000).flat_map(chunk).chain(*b"0\r\n\r\n").collect();
            Reply::new("200 OK", "Transfer-Encoding: chunked\r\n", &chunks)
        }
        _ => Reply::file(request, &format!("\"{}\"", content.len()), content),
    }
}

/// One of the failures that the method and the answer allow.
fn fail(request: &Request, reply: Reply, random: &mut Random) -> Reply {
    // At least the end of the last chunk is missing.
    let most = reply.body.len().saturating_sub(8);
    let is_cut = request.method == "GET" && most > 0;
    match random.below(4) {
        0 => Reply::new("503 Slow Down", "", b"<Code>SlowDown</Code>"),
        1 if is_cut => reply.with(Fault::Closed(random.below(most))),
        2 if is_cut => reply.with(Fault::ResetAfter(random.below(most))),
        _ => reply.with(Fault::Reset),
    }
}

/// The numbers of failures and of reports of further attempts.
fn count(name: &'static str, seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let files = Arc::new(files(&mut random));
    let injected = Arc::new(AtomicUsize::new(0));
    let (served, failed, random) = (files.clone(), injected.clone(), Mutex::new(random));
    let policy = RetryPolicy { first_pause: Duration::from_millis(1), ..RetryPolicy::STORE };
    let bucket = Bucket::new(name, policy, move |request| {
        let (reply, mut random) = (reply(request, &served), random.lock().unwrap());
        if random.below(20) > 0 {
            return reply;
        }
        failed.fetch_add(1, Ordering::SeqCst);
        fail(request, reply, &mut random)
    });
    for (key, content) in &*files {
        let is_stored = key.starts_with("stored/");
        let url = if is_stored { bucket.url(key) } else { format!("{}/{name}/{key}", bucket.server.url) };
        if is_stored && content.len() > 60 {
            let part = bucket.storage.read(&url, 10, 50).unwrap_or_else(|error| panic!("{}", text_of(&error)));
            assert!(part == content[10..60], "{url}");
        }
        let copy = bucket.storage.fetch(&url).unwrap_or_else(|error| panic!("{}", text_of(&error)));
        assert!(fs::read(copy).unwrap() == *content, "{url}");
    }
    let reported = reported_attempts(&format!("/{name}/"));
    (injected.load(Ordering::SeqCst), reported.len())
}

#[test]
fn every_byte_arrives_and_each_failure_is_reported() {
    for (name, seed) in [("faulty-1", 1), ("faulty-2", 2), ("faulty-3", 3)] {
        let (injected, reported) = count(name, seed);
        assert_eq!(reported, injected, "seed {seed}");
        assert!(injected > 5, "seed {seed}: {injected} failures");
    }
}
