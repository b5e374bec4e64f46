//! Clients that do not read their answers, disconnect before they have them, or ask for more than they may.

use crate::{
    Server, assert_close,
    common::{Workspace, fixture},
    data_uri, embedded,
    generation::post_speech,
    model, numbers,
    search::build,
};
use mm_data::decode::{Audio, write_wav};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

/// Sends a request on a connection with room for little of the answer, and reads the beginning of its head alone.
fn ask_without_reading(server: &Server, head: &str, body: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    let address: SocketAddr = server.url.trim_start_matches("http://").parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    write!(stream, "{head} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    stream
}

/// What is left of an answer on a connection.
fn rest(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    // A connection that was cut off ends with an error.
    let _ = stream.read_to_end(&mut rest);
    rest
}

/// The sum of a metric over its labels.
pub fn metric(server: &Server, name: &str) -> f64 {
    let metrics = server.get("/metrics").text;
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

pub fn wait_until(what: &str, seconds: u64, is_true: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_true() {
        assert!(started.elapsed() < Duration::from_secs(seconds), "{what}: not after {seconds} s");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Copies a model of mm-reason's fixtures, with changes of its files.
fn changed_model(name: &str, folder: &Path, changes: &[(&str, fn(&mut Value))]) {
    std::fs::create_dir(folder).unwrap();
    for entry in std::fs::read_dir(fixture("mm-reason", name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    for (file, change) in changes {
        let mut value = serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap();
        change(&mut value);
        std::fs::write(folder.join(file), value.to_string()).unwrap();
    }
}

#[test]
fn a_client_that_reads_none_of_its_stream_holds_up_no_model_and_is_cut_off() {
    let workspace = Workspace::new();
    // A text that ends at `max_tokens` alone.
    let changes: [(&str, fn(&mut Value)); 2] = [
        ("config.json", |config| config["text_config"]["max_position_embeddings"] = 5000.into()),
        ("generation_config.json", |config| config["suppress_tokens"] = config["eos_token_id"].clone()),
    ];
    changed_model("qwen2_vl-image", &workspace.path().join("endless"), &changes);
    workspace.write("serve.toml", "[limits]\nwrite_seconds = 8\n");
    // Each part of a stream has the name: together they are more than what the system holds for a connection.
    let name = "n".repeat(4000);
    let arguments = ["--config", "serve.toml", "--model", &format!("{name}=endless")];
    let server = Server::start(&arguments, workspace.path(), &[]);
    let chat = |tokens: usize, stream: bool| {
        let messages = json!([{"role": "user", "content": "the quick"}]);
        json!({"messages": messages, "max_tokens": tokens, "temperature": 0, "stream": stream})
    };
    let body = chat(2000, true).to_string();
    let idle = ask_without_reading(&server, "POST /v1/chat/completions", &body);
    let answer = server.post("/v1/chat/completions", &chat(3, false)).json();
    assert_eq!(answer["usage"]["completion_tokens"], 3, "{answer}");
    // The model does not wait for the connection to be closed.
    assert_eq!(metric(&server, "mm_requests_in_progress"), 1.0);
    wait_until("the stream is closed", 30, || metric(&server, "mm_requests_in_progress") == 0.0);
    let read = String::from_utf8_lossy(&rest(idle)).into_owned();
    assert!(!read.contains("[DONE]"), "{} bytes", read.len());
    // A client that reads gets all of it.
    let whole = server.post("/v1/chat/completions", &chat(2000, true)).text;
    assert!(whole.len() > 4_000_000 && whole.contains("data: [DONE]"), "{} bytes", whole.len());
}

#[test]
fn a_transcript_ends_where_its_client_goes_away() {
    const SECONDS: usize = 1500;
    let workspace = Workspace::new();
    let folder = workspace.path();
    // Slowly: by many beams, in windows of two seconds.
    let changes: [(&str, fn(&mut Value)); 1] = [("generation_config.json", |config| config["num_beams"] = 8.into())];
    changed_model("whisper-multilingual", &folder.join("whisper"), &changes);
    let server = Server::start(&["--model", "whisper"], folder, &[]);
    let samples = (0..SECONDS * 8000).map(|i| (i as f32 * 0.05).sin() * 0.4).collect();
    write_wav(&folder.join("long.wav"), &Audio { samples, sample_rate: 8000 }).unwrap();
    let file = std::fs::read(folder.join("long.wav")).unwrap();
    let head = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    let length = head.len() + file.len() + b"\r\n--b--\r\n".len();
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    let form = "content-type: multipart/form-data; boundary=b";
    write!(
        stream,
        "POST /v1/audio/transcriptions HTTP/1.1\r\nhost: localhost\r\n{form}\r\ncontent-length: {length}\r\n\r\n{head}"
    )
    .unwrap();
    stream.write_all(&[&file[..], b"\r\n--b--\r\n"].concat()).unwrap();
    wait_until("the transcript has begun", 60, || metric(&server, "mm_batch_rows_count") == 1.0);
    drop(stream);
    let started = Instant::now();
    post_speech(&server, &[], &std::fs::read(folder.join("1.wav")).unwrap()).json();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn a_recording_is_refused_where_it_exceeds_the_limit() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    workspace.write("serve.toml", "[limits]\nmax_audio_seconds = 1\n");
    let whisper = model("whisper", "mm-reason", "whisper-english");
    let server = Server::start(&["--config", "serve.toml", "--model", &whisper], folder, &[]);
    let post = |samples: usize, sample_rate: u32| {
        let path = folder.join("recording.wav");
        write_wav(&path, &Audio { samples: vec![0.1; samples], sample_rate }).unwrap();
        post_speech(&server, &[], &std::fs::read(path).unwrap())
    };
    assert_eq!(post(8000, 8000).status, 200);
    post(8001, 8000).refused(413, "file: found more than 1 seconds of audio, expected at most 1 s");
    post(70_000, 96_000).refused(413, "more than 48000 samples of audio");
    post(8001, 8000).refused(413, "limits.max_audio_seconds");
}

#[test]
fn the_limit_of_recordings_is_that_of_embeddings_and_classes_too() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    workspace.write("serve.toml", "[limits]\nmax_audio_seconds = 1\n");
    let clap = model("sounds", "mm-repr", "families/clap-unfused");
    let server = Server::start(&["--config", "serve.toml", "--model", &clap], folder, &[]);
    let recording = |samples: usize| {
        let path = folder.join("recording.wav");
        write_wav(&path, &Audio { samples: vec![0.1; samples], sample_rate: 8000 }).unwrap();
        data_uri(&path, "audio/wav")
    };
    let embed = |samples: usize| server.post("/v1/embeddings", &json!({"input": [{"audio": recording(samples)}]}));
    assert_eq!(embed(8000).status, 200, "{}", embed(8000).text);
    embed(8001).refused(413, "limits.max_audio_seconds");
    let classify = json!({"audio": [recording(8001)], "candidates": ["dog", "cat"]});
    server.post("/classify", &classify).refused(413, "audio: found more than 1 seconds of audio");
    // Within the limit, vectors are those of the program.
    let expected = embedded(&fixture("mm-repr", "families/clap-unfused"), &["--audio", "1.wav"], folder);
    let audio = data_uri(&folder.join("1.wav"), "audio/wav");
    let found = server.post("/v1/embeddings", &json!({"input": [{"audio": audio}]})).json();
    assert_close(&numbers(&found["data"][0]["embedding"]), &expected);
}

#[test]
fn files_by_url_have_a_limit_for_all_of_a_request() {
    let workspace = Workspace::new();
    workspace.write("serve.toml", "fetch_from = [\"images.example.org\"]\n[limits]\nmax_urls = 0\n");
    let server = Server::start(&["--config", "serve.toml", "--model", "eyes"], workspace.path(), &[]);
    let image = |url: &str| json!({"input": [{"image": url}], "model": "eyes"});
    let answer = server.post("/v1/embeddings", &image("https://images.example.org/a.png"));
    answer.refused(413, "input[0].image: found more than 0 URLs in the request");
    answer.refused(413, "limits.max_urls");
}

#[test]
fn files_of_rows_are_sent_in_parts_and_not_held() {
    const SIZE: u64 = 512 << 20;
    let workspace = Workspace::new();
    build(&workspace);
    let folder = workspace.path();
    workspace.write("serve.toml", "[limits]\nwrite_seconds = 2\n");
    let clip = model("clip", "mm-repr", "families/clip-eos-gelu");
    let arguments = ["--config", "serve.toml", "--model", &clip, "--store", "photos.index"];
    let server = Server::start(&arguments, folder, &[]);
    let link = "/media?id=4&field=image";
    let get = |name: &str, value: &str| {
        Server::answer(server.agent.get(format!("{}{link}", server.url)).header(name, value).call())
    };
    let whole = server.get(link);
    let length = std::fs::metadata(folder.join("4.png")).unwrap().len();
    assert_eq!(whole.headers["content-length"], length.to_string());
    assert_eq!(whole.headers["cross-origin-resource-policy"], "same-origin");
    assert_eq!(whole.headers["x-content-type-options"], "nosniff");
    let part = get("range", "bytes=1-3");
    assert_eq!(
        (part.status, part.text.as_str(), &part.headers["content-type"]),
        (206, "PNG", &whole.headers["content-type"])
    );
    assert_eq!(part.headers["content-range"], format!("bytes 1-3/{length}"));
    assert_eq!(get("range", "bytes=100000-").status, 416);
    assert_eq!(get("if-modified-since", whole.headers["last-modified"].to_str().unwrap()).status, 304);
    // A file is not read into memory, and a client that takes none of it is cut off.
    let before = peak_memory(&server);
    std::fs::File::options().write(true).open(folder.join("4.png")).unwrap().set_len(SIZE).unwrap();
    let idle = ask_without_reading(&server, &format!("GET {link}"), "");
    std::thread::sleep(Duration::from_secs(6));
    let read = rest(idle).len();
    assert!((read as u64) < SIZE / 2, "{read} bytes");
    assert!(peak_memory(&server) < before + (SIZE >> 12), "{before} kB, then {} kB", peak_memory(&server));
    std::fs::remove_file(folder.join("4.png")).unwrap();
    server.get(link).refused(404, "no longer a file");
}

/// The most memory that a server had so far, in kB.
fn peak_memory(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
