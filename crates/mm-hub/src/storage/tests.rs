//! Servers that keep failing, and large files.

mod broken;
mod injected;

use super::*;
use crate::{
    error::describe as text_of,
    testing::{
        Server,
        faulty::{Reply, Request, Server as FaultyServer},
    },
};
use object_store::{PutPayload, aws::AmazonS3Builder, memory::InMemory};
use std::time::{Duration, Instant};

const RETRIES: RetryPolicy = RetryPolicy { attempts: 3, first_pause: Duration::from_millis(10), ..RetryPolicy::STORE };

/// A bucket of S3 on this machine.
struct Bucket {
    name: &'static str,
    server: FaultyServer,
    cache: tempfile::TempDir,
    storage: Arc<Storage>,
}

impl Bucket {
    /// The name tells what is reported of this bucket from what is reported of others.
    fn new(
        name: &'static str,
        retries: RetryPolicy,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (server, cache) = (FaultyServer::start(answer), tempfile::tempdir().unwrap());
        let storage = Arc::new(Storage::with_retries(cache.path(), retries));
        let builder = AmazonS3Builder::new()
            .with_endpoint(&server.url)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id("key")
            .with_secret_access_key("secret");
        let store = Arc::new(stores::s3(builder, name, retries).unwrap());
        storage.stores.lock().unwrap().insert(format!("s3://{name}"), store);
        Self { name, server, cache, storage }
    }

    fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    fn fetch(&self, key: &str) -> Result<Vec<u8>> {
        self.storage.fetch(&self.url(key)).map(|copy| fs::read(copy).unwrap())
    }

    fn objects(&self) -> Objects {
        Objects::new(self.storage.clone(), &self.url("out")).unwrap()
    }
}

/// What fetching a file from a server ends with, and how many requests it took.
fn fetch(server: &Server) -> (Result<Vec<u8>>, usize) {
    let cache = tempfile::tempdir().unwrap();
    let storage = Storage::with_retries(cache.path(), RETRIES);
    let fetched = storage.fetch(&format!("{}/rows.csv?signature=secret", server.url));
    (fetched.map(|copy| fs::read(copy).unwrap()), server.count())
}

#[test]
fn a_server_that_keeps_failing_is_asked_a_few_times_and_named() {
    for status in ["429 Too Many Requests", "500 Internal Server Error", "503 Slow Down"] {
        let server = Server::answering(move |_, _| (status, "", b"<Code>SlowDown</Code>".to_vec()));
        let (fetched, requests) = fetch(&server);
        let text = text_of(&fetched.unwrap_err());
        assert_eq!(requests, 3, "{text}");
        let number = &status[..3];
        for part in ["/rows.csv", "cannot be read", &format!("the server answered {number}"), "(tried 3 times in 0 s"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // Nobody listens there.
    let cache = tempfile::tempdir().unwrap();
    let fetched = Storage::with_retries(cache.path(), RETRIES).fetch("http://127.0.0.1:1/rows.csv");
    let text = text_of(&fetched.unwrap_err());
    assert!(text.contains("refused") && text.contains("(tried 3 times in 0 s"), "{text}");
}

#[test]
fn a_store_that_keeps_failing_is_asked_a_few_times_for_whatever_it_is_asked() {
    for status in ["429 Too Many Requests", "500 Internal Server Error"] {
        let bucket = Bucket::new("failing", RETRIES, move |_| Reply::new(status, "", b"<Code>SlowDown</Code>"));
        let objects = bucket.objects();
        let errors = [
            objects.read("a").unwrap_err(),
            objects.write("a", b"content").unwrap_err(),
            objects.create("a", b"content").unwrap_err(),
            objects.remove("a").unwrap_err(),
            objects.list("").unwrap_err(),
            bucket.storage.read(&bucket.url("out/a"), 0, 10).unwrap_err(),
        ];
        for (number, text) in errors.iter().map(|error| text_of(error)).enumerate() {
            assert!(text.contains("s3://failing/out") && text.contains(&status[..3]), "{number}: {text}");
            assert_eq!(text.matches("(tried 3 times in 0 s; try again later)").count(), 1, "{number}: {text}");
        }
        assert_eq!(bucket.server.requests().len(), 3 * errors.len());
    }
}

#[test]
fn a_server_that_states_no_size_and_keeps_failing_is_asked_a_few_times() {
    for status in ["429 Too Many Requests", "500 Internal Server Error"] {
        let server = FaultyServer::start(move |request| match request.method.as_str() {
            "HEAD" => Reply::new("200 OK", "Transfer-Encoding: chunked\r\n", b""),
            _ => Reply::new(status, "", b""),
        });
        let cache = tempfile::tempdir().unwrap();
        let storage = Storage::with_retries(cache.path(), RETRIES);
        let text = text_of(&storage.fetch(&format!("{}/rows.csv", server.url)).unwrap_err());
        assert!(text.contains(&format!("the server answered {}", &status[..3])), "{text}");
        assert_eq!(text.matches("(tried 3 times in 0 s; try again later)").count(), 1, "{text}");
        assert_eq!(server.requests().len(), 4, "{text}");
    }
}

#[test]
fn a_server_that_names_a_pause_is_asked_after_it() {
    let server = Server::answering(|number, _| match number {
        0 => ("429 Too Many Requests", "Retry-After: 1\r\n", Vec::new()),
        _ => ("200 OK", "", b"text\na\n".to_vec()),
    });
    let begun = Instant::now();
    let (fetched, requests) = fetch(&server);
    assert_eq!((fetched.unwrap(), requests), (b"text\na\n".to_vec(), 3));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    // A pause that is too long is not waited for.
    let server = Server::answering(|_, _| ("429 Too Many Requests", "Retry-After: 600\r\n", Vec::new()));
    let (fetched, requests) = fetch(&server);
    let text = text_of(&fetched.unwrap_err());
    assert_eq!(requests, 1, "{text}");
    assert!(text.contains("429") && text.contains("the next attempt would begin in 600 s"), "{text}");
}

#[test]
fn what_does_not_go_away_is_asked_for_once() {
    for (status, part) in [("404 Not Found", "no such file"), ("403 Forbidden", "refuses it")] {
        let server = Server::answering(move |_, _| (status, "", Vec::new()));
        let (fetched, requests) = fetch(&server);
        let text = text_of(&fetched.unwrap_err());
        assert!(requests == 1 && text.contains(part), "{requests} {text}");
    }
}

#[test]
fn of_an_answer_in_xml_the_message_is_shown() {
    let text = "status code: 404 Not Found: <?xml version=\"1.0\"?>\n<Error><Code>NoSuchBucket</Code><Message>No such \
                bucket.</Message></Error>";
    assert_eq!(without_markup(text), "status code: 404 Not Found: No such bucket.");
    assert_eq!(without_markup("Connection refused"), "Connection refused");
}

#[test]
fn a_large_file_is_read_in_parts() {
    let cache = tempfile::tempdir().unwrap();
    let storage = Storage::new(cache.path());
    let store = Arc::new(InMemory::new());
    storage.stores.lock().unwrap().insert("s3://bucket".to_owned(), store.clone());
    let bytes: Vec<u8> = (0..(40u32 << 20)).map(|i| (i >> 12) as u8).collect();
    let path = ObjectPath::from("large.bin");
    storage.runtime().unwrap().block_on(store.put(&path, PutPayload::from(bytes.clone()))).unwrap();
    let copy = storage.fetch("s3://bucket/large.bin").unwrap();
    assert!(fs::read(copy).unwrap() == bytes);
}
