//! `mm serve` as clients use it: a real process, real HTTP.
#![allow(missing_docs, clippy::missing_panics_doc)]

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod docs;
mod embeddings;
mod generation;
mod limits;
mod load;
mod mcp;
mod memory;
mod predict;
mod rerank;
mod search;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::{fixture, mm};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// A running server; it is killed when it is dropped.
pub struct Server {
    child: Child,
    pub url: String,
    agent: ureq::Agent,
}

/// A status and a body.
pub struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub text: String,
}

impl Answer {
    /// The body as JSON of a request that must have succeeded.
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Asserts a refusal with the body of text-embeddings-inference whose message contains `wanted`.
    pub fn refused_by_tei(&self, status: u16, kind: &str, wanted: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        let body: Value = serde_json::from_str(&self.text).unwrap();
        let message = body["error"].as_str().unwrap_or_else(|| panic!("{body}"));
        assert!(body["error_type"] == kind && message.contains(wanted), "expected {kind} and {wanted:?} in {body}");
    }

    /// Asserts a refusal with OpenAI's body whose message contains `wanted`.
    pub fn refused(&self, status: u16, wanted: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        let body: Value = serde_json::from_str(&self.text).unwrap();
        let message = body["error"]["message"].as_str().unwrap_or_else(|| panic!("{body}"));
        assert!(message.contains(wanted), "expected {wanted:?} in {message:?}");
    }
}

impl Server {
    /// Starts `mm serve` with arguments, and waits until it is ready.
    pub fn start(arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mm"));
        command.args(["serve", "--port", "0", "--json", "--device", "cpu"]).args(arguments).current_dir(folder);
        command.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let first: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let server = Self { child, url: first["address"].as_str().unwrap().to_owned(), agent };
        let started = Instant::now();
        while server.get("/ready").status != 200 {
            assert!(started.elapsed() < Duration::from_secs(60), "the server is not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
        let mut response = result.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut response.body_mut().as_reader(), &mut text).unwrap();
        Answer { status, headers, text: String::from_utf8_lossy(&text).into_owned() }
    }

    pub fn get(&self, path: &str) -> Answer {
        Self::answer(self.agent.get(format!("{}{path}", self.url)).call())
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, "application/json", body.to_string().as_bytes(), &[])
    }

    pub fn post_bytes(&self, path: &str, content_type: &str, body: &[u8], headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.url)).header("content-type", content_type);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self::answer(request.send(body))
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Waits for the end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to stop, so that what measures coverage writes its counts; it may have ended. SIGTERM would take longer.
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        for _ in 0..100 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file as a data URI.
pub fn data_uri(path: &Path, kind: &str) -> String {
    format!("data:{kind};base64,{}", STANDARD.encode(std::fs::read(path).unwrap()))
}

/// A model of the test fixtures as an option.
pub fn model(name: &str, crate_name: &str, path: &str) -> String {
    format!("{name}={}", fixture(crate_name, path).display())
}

/// The numbers of a JSON array.
pub fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("{value}")).iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Asserts that two vectors are equal within 1e-6.
pub fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    let distance = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(distance < 1e-6, "{distance}");
}

/// The vector that `mm embed` gives.
pub fn embedded(model: &Path, arguments: &[&str], folder: &Path) -> Vec<f64> {
    let embed = ["embed", "--json", "--device", "cpu", "--model", model.to_str().unwrap()];
    let output = mm(&[&embed, arguments].concat(), folder);
    let line: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", common::text(&output)));
    numbers(&line["embedding"])
}
