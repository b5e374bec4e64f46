//! Tables whose cells name files by URL.

use crate::{common::text, json};
use image::{Rgb, RgbImage};
use std::{
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

fn mm(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(arguments)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .output()
        .unwrap()
}

/// A server on this machine that has one image and one text.
fn server() -> String {
    let mut png = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(5, 4, Rgb([9, 8, 7])).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut request, mut byte) = (Vec::new(), [0u8; 1]);
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let (status, body) = match request.split(' ').nth(1).unwrap_or_default() {
                "/red.png?size=5" => ("200 OK", png.as_slice()),
                "/note.txt" => ("200 OK", "a red square".as_bytes()),
                _ => ("404 Not Found", &[][..]),
            };
            let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // The client may have gone.
            let _ = stream.write_all(&[head.as_bytes(), body].concat());
        }
    });
    address
}

#[test]
fn urls_are_fetched_where_the_user_says_so_and_failures_are_counted() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let address = server();
    let row =
        |image: &str| format!("{{\"image\":\"{address}/{image}\",\"text\":{{\"url\":\"{address}/note.txt\"}}}}\n");
    let table = [row("red.png?size=5"), row("gone.png"), row("red.png?size=5")].concat();
    std::fs::write(folder.join("t.jsonl"), table).unwrap();
    let inspect = |more: &[&str]| json(&mm(&[&["inspect", "t.jsonl", "--json"], more].concat(), folder));
    let refused = inspect(&[]);
    assert_eq!(refused["failed"]["count"], 6, "{refused}");
    let reason = refused["failed"]["examples"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("found a URL (http)") && reason.contains("--fetch-urls"), "{reason}");
    let fetched = inspect(&["--fetch-urls"]);
    assert_eq!(fetched["failed"]["count"], 1, "{fetched}");
    let failed = &fetched["failed"]["examples"][0];
    assert!(failed["reason"].as_str().unwrap().contains("the server answered 404"), "{failed}");
    assert!(failed.to_string().contains("/gone.png"), "{failed}");
    // One copy of each file; what failed leaves none.
    assert_eq!(std::fs::read_dir(folder.join("cache/mm/urls")).unwrap().count(), 2);
    // A model sees the same image as from a file.
    RgbImage::from_pixel(5, 4, Rgb([9, 8, 7])).save(folder.join("red.png")).unwrap();
    std::fs::write(folder.join("f.jsonl"), "{\"image\":\"red.png\"}\n{\"image\":null}\n{\"image\":\"red.png\"}\n")
        .unwrap();
    let model = folder.join("eyes");
    std::fs::create_dir(&model).unwrap();
    for file in ["config.json", "preprocessor_config.json", "weights.pth"] {
        std::fs::copy(crate::common::fixture("mm-repr", "efficientnet-lite").join(file), model.join(file)).unwrap();
    }
    let embed = |data: &str, out: &str, more: &[&str]| {
        let model = ["embed", "--model", "eyes", "--data", data, "--out", out, "--json"];
        let output = mm(&[&model, more].concat(), folder);
        assert!(output.status.success(), "{}", text(&output));
        std::fs::read(folder.join(out)).unwrap()
    };
    assert_eq!(embed("t.jsonl", "t.npy", &["--fetch-urls"]), embed("f.jsonl", "f.npy", &[]));
}

#[test]
fn options_of_tables_need_a_table() {
    let folder = tempfile::tempdir().unwrap();
    let model = crate::common::fixture("mm-repr", "bert-plain");
    for option in [&["--fetch-urls"][..], &["--encoding", "latin1"], &["--missing-values", "?"]] {
        let embed = ["embed", "--model", model.to_str().unwrap(), "--text", "a dog"];
        crate::common::refused(&[&embed, option].concat(), folder.path(), &["--fetch-urls", "--data"]);
    }
}
