//! Data sets in object stores and on web servers: a server on this machine that fails now and then, refuses, and lies.

use crate::{
    bucket::Server,
    common::{Workspace, assert_refused, fixture, text},
    json, ok,
};
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

fn shards(workspace: &Workspace) -> PathBuf {
    let arguments = ["data", "shard", "--data", "data.jsonl", "--out", "store/d", "--max-rows", "2"];
    ok(&crate::common::mm(&arguments, workspace.path()));
    workspace.path().join("store")
}

#[test]
fn shards_of_a_bucket_are_embedded_as_those_of_a_folder() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(&shards(&workspace), 5);
    let embed = |shards: &str, out: &str| {
        json(&server.mm(&["embed", "--model", "eyes", "--shards", shards, "--out", out, "--json"], folder))
    };
    let remote = embed("s3://bucket/d-{000000..000005}.tar", "remote");
    assert_eq!(remote["vectors"].as_u64(), Some(12), "{remote}");
    assert!(server.requests.failed.load(Ordering::SeqCst) >= 2, "no request failed");
    embed("store/d-{000000..000005}.tar", "local");
    for number in 0..6 {
        let file = format!("img_emb/img_emb_d-{number:06}.npy");
        let read = |out: &str| std::fs::read(folder.join(out).join(&file)).unwrap();
        assert!(read("remote") == read("local"), "{file}");
    }
    // Copies of shards that are done are gone.
    assert_eq!(std::fs::read_dir(folder.join("cache/mm/storage")).unwrap().count(), 0);
    // Done shards are not requested again.
    let before = server.requests.downloads.load(Ordering::SeqCst);
    assert_eq!(embed("s3://bucket/d-{000000..000005}.tar", "remote")["processed"].as_u64(), Some(0));
    assert_eq!(server.requests.downloads.load(Ordering::SeqCst), before);
}

#[test]
fn shards_that_exceed_the_cache_are_read_in_parts() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let store = shards(&workspace);
    let server = Server::start(&store, 7);
    let largest = (0..6).map(|n| store.join(format!("d-{n:06}.tar")).metadata().unwrap().len()).max().unwrap();
    // Two of the six shards.
    let limit = (2 * largest).to_string();
    let limits = [("MM_STORAGE_CACHE_BYTES", limit.as_str())];
    let train = |manifest: &str, out: &str| {
        let settings = [
            format!("data.manifest=\"{manifest}\""),
            format!("cache_dir=\"features-{out}\""),
            "train.epochs=2".to_owned(),
        ];
        let options = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments = ["train", "config.toml", "--out", out, "--device", "cpu", "--threads", "1"];
        ok(&server.mm_with(&arguments.into_iter().chain(options).collect::<Vec<_>>(), folder, &limits));
        crate::resume::tensors(&folder.join(out))
    };
    let expected = train("store/d-{000000..000005}.tar", "local");
    assert!(train("s3://bucket/d-{000000..000005}.tar", "remote") == expected);
    let counts = || [&server.requests.downloads, &server.requests.parts].map(|count| count.load(Ordering::SeqCst));
    let [downloads, parts] = counts();
    assert!(downloads >= 6 && parts > 0, "{downloads} downloads, {parts} parts");
    let embed = |data: &str, out: &str| {
        let arguments = ["embed", "--model", "eyes", "--data", data, "--modality", "image", "--out", out];
        ok(&server.mm_with(&arguments, folder, &limits));
        std::fs::read(folder.join(out)).unwrap()
    };
    let vectors = embed("store/d-{000000..000005}.tar", "local.npy");
    assert!(embed("s3://bucket/d-{000000..000005}.tar", "remote.npy") == vectors);
    let folders = std::fs::read_dir(folder.join("cache/mm/storage")).unwrap().flatten();
    let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten());
    let copies = files.filter(|file| file.file_name().to_string_lossy().starts_with("of-")).count();
    assert!((1..=2).contains(&copies), "{copies}");
    // A server that sends no parts.
    let web = format!("http://{}/bucket/whole/d-{{000000..000005}}.tar", server.address);
    assert!(train(&web, "web") == expected);
}

#[test]
fn shards_are_written_to_a_bucket() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    // A file that is sent in parts, of which the last is not whole.
    let large: Vec<u8> =
        b"\x89PNG\r\n\x1a\n".iter().copied().chain((0..40_000_000u32).map(|i| (i / 7) as u8)).collect();
    std::fs::write(folder.join("large.png"), large).unwrap();
    workspace
        .write("large.jsonl", "{\"id\":\"a\",\"image\":\"large.png\"}\n{\"id\":\"b\",\"image\":\"photo-0.png\"}\n");
    std::fs::write(folder.join("photo-0.png"), b"\x89PNG\r\n\x1a\n small").unwrap();
    let server = Server::start(folder, 7);
    let shard =
        |out: &str| server.mm(&["data", "shard", "--data", "large.jsonl", "--out", out, "--max-rows", "1"], folder);
    ok(&shard("local/large"));
    ok(&shard("s3://bucket/store/large"));
    assert_eq!(server.requests.uploaded_parts.load(Ordering::SeqCst), 3);
    for name in ["large-000000.tar", "large-000001.tar"] {
        let read = |out: &str| std::fs::read(folder.join(out).join(name)).unwrap();
        assert!(read("local") == read("store"), "{name}");
    }
    let rows = json(&server.mm(&["inspect", "s3://bucket/store/large-{000000..000001}.tar", "--json"], folder));
    assert_eq!(rows["rows"].as_u64(), Some(2), "{rows}");
    // What is there is not overwritten; what cannot be written to is named.
    std::fs::write(folder.join("photo-0.png"), b"\x89PNG\r\n\x1a\n other").unwrap();
    let refused = |out: &str, wanted: &[&str]| assert_refused(&shard(out), &[out], wanted);
    refused("s3://bucket/store/large", &["large-000000.tar", "exists already"]);
    refused("s3://bucket/secret/large", &["secret/large-000000.tar", "refuses it"]);
    refused("https://host/large", &["https://host", "s3://"]);
    refused("s3://large", &["--out", "s3://BUCKET/PREFIX"]);
}

#[test]
fn a_table_on_a_server_names_the_files_next_to_it() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(folder, 1000);
    let embed = |data: &str, out: &str| {
        let vectors = ["embed", "--model", "eyes", "--data", data, "--modality", "image", "--out", out];
        ok(&server.mm(&vectors, folder));
        std::fs::read(folder.join(out)).unwrap()
    };
    let expected = embed("data.jsonl", "local.npy");
    let web = format!("http://{}/bucket/data.jsonl", server.address);
    assert!(embed(&web, "web.npy") == expected);
    assert!(embed("hf://datasets/org/name/data.jsonl", "hub.npy") == expected);
    // The copies are used again as long as the server states the same.
    let before = server.requests.downloads.load(Ordering::SeqCst);
    assert!(embed(&web, "again.npy") == expected);
    assert_eq!(server.requests.downloads.load(Ordering::SeqCst), before);
    let table = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
    workspace.write("data.jsonl", table.lines().take(7).collect::<Vec<_>>().join("\n"));
    let rows = json(&server.mm(&["inspect", &web, "--json"], folder));
    assert_eq!(rows["rows"].as_u64(), Some(7), "{rows}");
    // A server that states no sizes.
    let chunked = format!("http://{}/bucket/chunked/data.jsonl", server.address);
    let rows = |variables: &[(&str, &str)]| {
        let output = server.mm_with(&["inspect", &chunked, "--json"], folder, variables);
        json(&output)["rows"].as_u64()
    };
    let before = server.requests.downloads.load(Ordering::SeqCst);
    assert_eq!(rows(&[]), Some(7));
    let first = server.requests.downloads.load(Ordering::SeqCst) - before;
    assert!(first > 0 && rows(&[]) == Some(7), "{first}");
    assert_eq!(server.requests.downloads.load(Ordering::SeqCst) - before, first);
    workspace.write("other.jsonl", &table);
    let refused = server.mm_with(
        &["inspect", &format!("http://{}/bucket/chunked/other.jsonl", server.address)],
        folder,
        &[("MM_STORAGE_CACHE_BYTES", "10")],
    );
    assert!(text(&refused).contains("states no size, and more than 10 bytes came"), "{}", text(&refused));
    // Without a network what is there is used.
    let offline = server.mm_with(&["inspect", &web, "--json"], folder, &[("MM_OFFLINE", "1")]);
    assert_eq!(json(&offline)["rows"].as_u64(), Some(7));
    // A config names its data by URL as well.
    let manifest = format!("data.manifest=\"{web}\"");
    ok(&server.mm(&["train", "config.toml", "--out", "run", "--set", &manifest, "--set", "train.epochs=1"], folder));
}

#[test]
fn servers_that_refuse_fail_or_lie_are_named() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    workspace.write("large.csv", format!("text\n{}\n", "a dog ".repeat(100)));
    let server = Server::start(folder, 1000);
    let refused = |data: &str, variables: &[(&str, &str)], wanted: &[&str]| {
        let arguments = ["inspect", data];
        assert_refused(&server.mm_with(&arguments, folder, variables), &arguments, wanted);
    };
    let web = |name: &str| format!("http://{}/bucket/{name}", server.address);
    refused("s3://bucket/nothing.csv", &[], &["s3://bucket/nothing.csv", "no such file"]);
    refused(&web("nothing.csv"), &[], &["no such file"]);
    refused("s3://bucket/secret.csv", &[], &["refuses it", "credentials"]);
    refused("s3://elsewhere/data.csv", &[], &["s3://elsewhere/data.csv", "no such bucket"]);
    refused("s3://bucket", &[], &["s3://bucket", "names a bucket and no file", "s3://BUCKET/FILE"]);
    refused(&format!("http://{}", server.address), &[], &["names a server and no file"]);
    let begun = Instant::now();
    let nowhere = [("AWS_ACCESS_KEY_ID", ""), ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")];
    refused("s3://bucket/data.csv", &nowhere, &["found no credentials", "AWS_ACCESS_KEY_ID"]);
    let nowhere = [("AZURE_STORAGE_ACCOUNT_NAME", "birds"), ("AZURE_MSI_ENDPOINT", "http://127.0.0.1:1")];
    refused("az://container/data.csv", &nowhere, &["found no credentials", "AZURE_STORAGE_CONNECTION_STRING"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    refused(&web("loop.csv"), &[], &["loop.csv", "redirect"]);
    refused(&web("lying.csv"), &[], &["lying.csv", "expected 40"]);
    refused("ftp://host/a.csv", &[], &["ftp://host/a.csv", "s3://"]);
    refused("hf://models/a.csv", &[], &["hf://datasets/ORG/NAME"]);
    refused(&web("large.csv"), &[("MM_STORAGE_CACHE_BYTES", "100")], &["at most 100", "MM_STORAGE_CACHE_BYTES"]);
    refused(&web("large.csv"), &[("MM_STORAGE_CACHE_BYTES", "1 GB")], &["MM_STORAGE_CACHE_BYTES", "`1 GB`"]);
    refused(&web("data.jsonl"), &[("MM_OFFLINE", "1")], &["data.jsonl"]);
    // Nothing half-written is left.
    let mut files = Vec::new();
    for copy in std::fs::read_dir(folder.join("cache/mm/storage")).into_iter().flatten().flatten() {
        files.extend(std::fs::read_dir(copy.path()).unwrap().flatten().map(|file| file.path()));
    }
    assert!(files.is_empty(), "{files:?}");
    let listed = server.mm(&["inspect", &web("large.csv")], folder);
    assert!(listed.status.success(), "{}", text(&listed));
}

/// All files below a folder with their contents, but for what says how it was made.
fn outputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for name in ["img_emb", "metadata", "leases"] {
        for entry in std::fs::read_dir(folder.join(name)).into_iter().flatten().flatten() {
            files.push((Path::new(name).join(entry.file_name()), std::fs::read(entry.path()).unwrap()));
        }
    }
    files.sort();
    files
}

#[test]
fn several_workers_write_to_a_bucket_of_which_one_is_killed() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let store = shards(&workspace);
    let server = Server::start(&store, 7);
    let arguments = |out| ["embed", "--model", "eyes", "--shards", "s3://bucket/d-{000000..000005}.tar", "--out", out];
    ok(&server.mm(&arguments("local"), folder));
    // One worker is killed while it holds a lease; another takes its shard when that has expired.
    let out = arguments("s3://bucket/out");
    let mut killed = server.command(&out, folder, &[("MM_LEASE_SECONDS", "3")]).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    let leases = store.join("out/leases");
    while std::fs::read_dir(&leases).map_or(0, Iterator::count) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert_eq!(killed.try_wait().unwrap(), None);
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(std::fs::read_dir(&leases).unwrap().count(), 1);
    let start = || {
        let mut command = server.command(&out, folder, &[("MM_LEASE_SECONDS", "3")]);
        command.arg("--json").stdout(Stdio::piped()).spawn().unwrap()
    };
    let workers: Vec<_> = (0..2).map(|_| start()).collect();
    let results: Vec<_> = workers.into_iter().map(|worker| json(&worker.wait_with_output().unwrap())).collect();
    for result in &results {
        assert_eq!(
            (result["vectors"].as_u64(), result["out"].as_str()),
            (Some(12), Some("s3://bucket/out")),
            "{result}"
        );
    }
    assert!(outputs(&folder.join("local")) == outputs(&store.join("out")));
    assert!(server.requests.failed.load(Ordering::SeqCst) >= 5, "no request failed");
    // The same through Google's interface.
    let google = |name: &str| format!("gs://bucket/{name}");
    let (from, to) = (google("d-{000000..000005}.tar"), google("google"));
    let result = json(&server.mm(&["embed", "--model", "eyes", "--shards", &from, "--out", &to, "--json"], folder));
    assert_eq!(result["vectors"].as_u64(), Some(12), "{result}");
    assert!(outputs(&folder.join("local")) == outputs(&store.join("google")));
    // Done shards are not embedded again, and one array is made of theirs.
    assert_eq!(json(&server.mm(&[&out[..], &["--json"]].concat(), folder))["processed"].as_u64(), Some(0));
    let merge = |from, to: &str| {
        let shards = "s3://bucket/d-{000000..000005}.tar";
        ok(&server.mm(&["embed", "--merge", from, "--shards", shards, "--modality", "image", "--out", to], folder));
        std::fs::read(folder.join(to)).unwrap()
    };
    assert!(merge("local", "a.npy") == merge("s3://bucket/out", "b.npy"));
    // Lines of other commands.
    let model = fixture("mm-reason", "git-caption");
    let caption = ["caption", "--model", model.to_str().unwrap(), "--max-new-tokens", "4"];
    for to in ["captions", "s3://bucket/captions"] {
        let more = ["--shards", "s3://bucket/d-{000000..000001}.tar", "--out", to];
        ok(&server.mm(&[&caption[..], &more].concat(), folder));
    }
    for number in 0..2 {
        let read = |below: &Path| std::fs::read_to_string(below.join(format!("captions/d-{number:06}.jsonl"))).unwrap();
        assert_eq!(read(folder), read(&store));
    }
}

#[test]
fn outputs_that_cannot_be_written_are_named() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    shards(&workspace);
    let server = Server::start(&workspace.path().join("store"), 1000);
    for (out, wanted) in [
        ("https://host/out", &["https://host/out", "s3://, gs:// or az://"][..]),
        ("hf://datasets/org/name/out", &["hf://datasets/org/name/out", "s3://"]),
        ("s3://elsewhere/out", &["s3://elsewhere/out/provenance.json", "no such bucket"]),
        ("s3://bucket/secret", &["s3://bucket/secret/provenance.json", "refuses it", "credentials"]),
    ] {
        let arguments = ["embed", "--model", "eyes", "--shards", "store/d-000000.tar", "--out", out];
        assert_refused(&server.mm(&arguments, folder), &arguments, wanted);
    }
    // What is one file, or a store with transactions, is written to this machine alone.
    for arguments in [
        &["embed", "--model", "eyes", "--data", "data.jsonl", "--out", "s3://bucket/a.npy"][..],
        &[
            "embed",
            "--merge",
            "o",
            "--shards",
            "store/d-000000.tar",
            "--modality",
            "image",
            "--out",
            "s3://bucket/a.npy",
        ],
        &["train", "config.toml", "--out", "s3://bucket/run"],
        &["index", "build", ".", "--model", "eyes", "--store", "s3://bucket/store"],
    ] {
        let wanted = if arguments[0] == "index" { "postgres://" } else { "a path on this machine" };
        assert_refused(&server.mm(arguments, folder), arguments, &["s3://bucket/", wanted]);
    }
    assert!(!folder.join("s3:").exists());
}
