//! Load on an HTTP server: clients that each send the next body once the answer to the last one is there, or after the
//! time that a refusal states.
//!
//!     serve URL BODIES CLIENTS SECONDS [CONTENT_TYPE]
//!     serve in-process MODEL BODIES SECONDS
//!
//! A line of BODIES is a body, or `@FILE`, a file with one. The content type is JSON's unless given.
//! Prints JSON: requests a second, latencies, and the number of answers by status. `in-process` embeds the text of one
//! body after the other with a checkpoint in this process, as the server does it, for the time that HTTP adds.

use mm_core::{Device, Modality, Source};
use mm_repr::{LoadOptions, Pretrained};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

/// Requests before the clock starts.
const WARM_UP: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [mode, model, file, seconds] if mode == "in-process" => in_process(Path::new(model), file, seconds.parse()?),
        [url, file, clients, seconds, rest @ ..] => {
            load([url, file, clients, seconds], rest);
            Ok(())
        }
        _ => {
            Err("usage: serve URL BODIES CLIENTS SECONDS [CONTENT_TYPE], or: serve in-process MODEL BODIES SECONDS"
                .into())
        }
    }
}

/// Embeds texts one after the other, in a process that is set up as that of `mm serve`.
fn in_process(model: &Path, file: &str, seconds: f64) -> Result<(), Box<dyn std::error::Error>> {
    mm_core::retain_freed_memory();
    mm_core::limit_spinning();
    mm_core::set_num_threads(mm_core::available_threads());
    let options = LoadOptions { device: Device::Cpu, stays_loaded: true, ..LoadOptions::default() };
    let model = Pretrained::load_with(model, options)?;
    let mut texts = Vec::new();
    for line in std::fs::read_to_string(file)?.lines().filter(|line| !line.is_empty()) {
        let body: serde_json::Value = serde_json::from_str(line)?;
        texts.push(Source::Text(body["input"].as_str().ok_or("a body without the text `input`")?.to_owned()));
    }
    if texts.is_empty() {
        return Err(format!("{file}: no bodies").into());
    }
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs_f64(seconds);
    let mut times = Vec::new();
    for text in texts.iter().cycle() {
        let started = Instant::now();
        if started >= end {
            break;
        }
        let vector: Vec<f32> = model.embed(&Modality::TEXT, std::slice::from_ref(text), None)?.to_vec()?;
        std::hint::black_box(vector);
        if started >= begin {
            times.push(started.elapsed().as_secs_f64() * 1000.0);
        }
    }
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (quantile(&times, 0.5), quantile(&times, 0.99));
    println!("{}", serde_json::json!({"p50_ms": p50, "p99_ms": p99, "calls": times.len()}));
    Ok(())
}

/// A quantile of sorted times; `None` of none.
fn quantile(times: &[f64], q: f64) -> Option<f64> {
    times.get(((times.len() as f64 * q) as usize).min(times.len().saturating_sub(1))).copied()
}

fn load([url, file, clients, seconds]: [&String; 4], rest: &[String]) {
    let content_type = rest.first().map_or("application/json", String::as_str);
    let text = std::fs::read_to_string(file).expect("the bodies can be read");
    let body = |line: &str| match line.strip_prefix('@') {
        Some(path) => std::fs::read(path).expect("a body can be read"),
        None => line.as_bytes().to_vec(),
    };
    let bodies: Vec<Vec<u8>> = text.lines().filter(|line| !line.is_empty()).map(body).collect();
    let clients: usize = clients.parse().expect("CLIENTS is a number");
    let seconds = Duration::from_secs_f64(seconds.parse().expect("SECONDS is a number"));
    let next = AtomicUsize::new(0);
    let begin = Instant::now() + WARM_UP;
    let end = begin + seconds;
    let answers: Vec<(f64, u16)> = std::thread::scope(|scope| {
        let client = || {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
            let mut answers = Vec::new();
            while Instant::now() < end {
                let body = &bodies[next.fetch_add(1, Ordering::Relaxed) % bodies.len()];
                let started = Instant::now();
                let sent = agent.post(url).header("content-type", content_type).send(body.as_slice());
                let mut retry_after = None;
                let status = sent.map_or(0, |mut response| {
                    let header = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
                    retry_after = header.and_then(|seconds| seconds.parse().ok());
                    let status = response.status().as_u16();
                    if response.body_mut().read_to_vec().is_ok() { status } else { 0 }
                });
                if started >= begin && Instant::now() <= end {
                    answers.push((started.elapsed().as_secs_f64() * 1000.0, status));
                }
                if let Some(seconds) = retry_after {
                    std::thread::sleep(Duration::from_secs(seconds));
                }
            }
            answers
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a client ends")).collect()
    });
    let mut times: Vec<f64> = answers.iter().filter(|(_, status)| *status == 200).map(|(time, _)| *time).collect();
    times.sort_by(f64::total_cmp);
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    answers.iter().for_each(|(_, status)| *statuses.entry(*status).or_default() += 1);
    let per_second = times.len() as f64 / seconds.as_secs_f64();
    println!(
        "{}",
        serde_json::json!({
            "per_second": per_second, "p50_ms": quantile(&times, 0.5), "p99_ms": quantile(&times, 0.99),
            "statuses": statuses,
        })
    );
}
