//! The model hub: `models pull ORG/NAME[@REVISION]`, into the cache of Python's `huggingface_hub` in its layout and by its variables,
//! so that what one of the two fetched is there for the other.

use crate::fetch::{Remote, agent, download_to};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where things are and how they are asked for, as `huggingface_hub` reads it from the environment.
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
    /// How long a connection may say nothing.
    stall: Duration,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

impl Hub {
    pub fn from_environment() -> Result<Self> {
        let home =
            || variable("HOME").map(PathBuf::from).context("HOME is not set; set HF_HOME to say where models are kept");
        let base = match (variable("HF_HOME"), variable("XDG_CACHE_HOME")) {
            (Some(own), _) => PathBuf::from(own),
            (None, Some(cache)) => Path::new(&cache).join("huggingface"),
            (None, None) => home()?.join(".cache/huggingface"),
        };
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let kept = variable("HF_TOKEN_PATH").map_or_else(|| base.join("token"), PathBuf::from);
        let token = variable("HF_TOKEN").or_else(|| std::fs::read_to_string(kept).ok());
        let on = |v: String| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str());
        let stall = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|v| v.parse().ok()).unwrap_or(10);
        Ok(Self {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".into())
                .trim_end_matches('/')
                .into(),
            cache: cache.map_or_else(|| base.join("hub"), PathBuf::from),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(on) || variable("MM_OFFLINE").is_some_and(on),
            stall: Duration::from_secs(stall),
        })
    }

    /// Fetches what a model needs of its repository; the folder with its files is returned.
    pub fn pull(&self, name: &str) -> Result<PathBuf> {
        let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let parts: Vec<&str> = repository.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|p| plain(p)) || revision.is_empty() || revision.contains("..") {
            bail!("`{name}` is no name of the hub; wanted ORG/NAME or ORG/NAME@REVISION");
        }
        let folder = self.cache.join(format!("models--{}", repository.replace('/', "--")));
        if self.offline {
            return self.cached(&folder, repository, revision);
        }
        let about =
            self.ask(&format!("/api/models/{repository}/revision/{}", escape(revision)), repository, revision)?;
        let commit = about.0["sha"].as_str().context("the hub's answer names no commit (`sha`)")?.to_owned();
        if !plain(&commit) {
            bail!("the hub's answer names a commit that is none: {commit}");
        }
        let files = self.files(&about.0, repository, &commit)?;
        let wanted = wanted(&files);
        let snapshot = folder.join("snapshots").join(&commit);
        // The index of a sharded checkpoint says which shards belong to it.
        let mut left: Vec<&HubFile> = files.iter().filter(|f| wanted.contains(f.path.as_str())).collect();
        left.sort_by_key(|f| !f.path.ends_with(".index.json"));
        let mut shards: Option<BTreeSet<String>> = None;
        for file in left {
            if let Some(named) = &shards
                && is_shard(&file.path)
                && !named.contains(&file.path)
            {
                continue;
            }
            self.bring(file, repository, &commit, &folder, &snapshot)?;
            if file.path.ends_with(".index.json") {
                let text = std::fs::read_to_string(snapshot.join(&file.path))?;
                let index: Value =
                    serde_json::from_str(&text).with_context(|| format!("{}: not an index", file.path))?;
                let named = index["weight_map"].as_object().context("an index without `weight_map`")?;
                let named = named.values().filter_map(Value::as_str).map(ToOwned::to_owned);
                shards.get_or_insert_default().extend(named);
            }
        }
        if let Some(lost) = shards.iter().flatten().find(|s| !snapshot.join(s).exists()) {
            bail!("{repository}: its index names {lost}, which the repository does not have");
        }
        // Last, so that a name stands only for what is whole.
        let reference = folder.join("refs").join(revision);
        std::fs::create_dir_all(reference.parent().unwrap_or(&folder))?;
        if revision != commit {
            std::fs::write(reference, &commit)?;
        }
        Ok(snapshot)
    }

    fn cached(&self, folder: &Path, repository: &str, revision: &str) -> Result<PathBuf> {
        let commit =
            std::fs::read_to_string(folder.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
        let snapshot = folder.join("snapshots").join(commit.trim());
        if snapshot.is_dir() {
            return Ok(snapshot);
        }
        bail!(
            "{repository}@{revision} is not in {} and HF_HUB_OFFLINE forbids fetching it; unset it, or copy that folder from a machine that has the model",
            self.cache.display()
        )
    }

    /// The files of a commit: by the tree, else by the names that the repository's own page lists.
    fn files(&self, about: &Value, repository: &str, commit: &str) -> Result<Vec<HubFile>> {
        let mut files = Vec::new();
        let mut next = Some(format!("/api/models/{repository}/tree/{commit}?recursive=true"));
        while let Some(path) = next.take() {
            let (page, more) = match self.ask(&path, repository, commit) {
                Ok(answer) => answer,
                Err(error) if files.is_empty() && about["siblings"].is_array() => {
                    eprintln!("{repository}: the tree could not be read ({error:#}); each file is asked for by itself");
                    let names = about["siblings"].as_array().into_iter().flatten();
                    let named = names.filter_map(|s| s["rfilename"].as_str());
                    return named.map(|path| self.head(repository, commit, path)).collect();
                }
                Err(error) => return Err(error),
            };
            for entry in page.as_array().context("the hub's tree is no list")? {
                if entry["type"] != "file" {
                    continue;
                }
                let lfs = entry["lfs"]["oid"].as_str().or(entry["lfs"]["sha256"].as_str());
                let digest = lfs.or(entry["oid"].as_str()).context("a file of the tree without `oid`")?;
                files.push(HubFile {
                    path: entry["path"].as_str().context("a file of the tree without `path`")?.to_owned(),
                    digest: digest.to_owned(),
                });
            }
            // The next page's address, without the endpoint.
            next = more.and_then(|link| {
                let address =
                    link.split(',').find(|l| l.contains("rel=\"next\""))?.split(['<', '>']).nth(1)?.to_owned();
                address.find("/api/").map(|at| address[at..].to_owned())
            });
        }
        Ok(files)
    }

    /// What the hub says of one file: its ETag is its checksum.
    fn head(&self, repository: &str, commit: &str, path: &str) -> Result<HubFile> {
        let url = format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escape(path));
        let mut request =
            agent(self.stall).head(&url).config().max_redirects(0).max_redirects_will_error(false).build();
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let answer = request.call().with_context(|| format!("{url} cannot be reached"))?;
        let status = answer.status().as_u16();
        if status >= 400 {
            bail!("{}", refusal(&url, repository, commit, status, None, self.token.is_some()));
        }
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok());
        let tag = header("x-linked-etag").or(header("etag")).with_context(|| format!("{url}: no ETag"))?;
        Ok(HubFile { path: path.to_owned(), digest: tag.trim_start_matches("W/").trim_matches('"').to_owned() })
    }

    fn bring(&self, file: &HubFile, repository: &str, commit: &str, folder: &Path, snapshot: &Path) -> Result<()> {
        let inside = Path::new(&file.path);
        let safe = inside.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let digest = &file.digest;
        let kind = match digest.len() {
            64 => "sha256",
            40 => "git",
            _ => bail!("{}: its checksum `{digest}` is neither a sha256 nor git's", file.path),
        };
        if !safe || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            bail!("{}: a name that leads out of the folder, or a checksum that is none", file.path);
        }
        let blob = folder.join("blobs").join(digest);
        let pointer = snapshot.join(inside);
        // A whole file was checked when it came.
        if !blob.exists() {
            let locks = self.cache.join(".locks").join(folder.file_name().unwrap_or_default());
            std::fs::create_dir_all(&locks).with_context(|| format!("{} cannot be made", locks.display()))?;
            let remote = Remote {
                url: format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escape(&file.path)),
                checksum: (kind, digest.clone()),
                bearer: self.token.clone(),
                stall: self.stall,
            };
            download_to(
                &remote,
                &blob,
                &folder.join("blobs").join(format!("{digest}.incomplete")),
                &locks.join(format!("{digest}.lock")),
            )
            .map_err(|error| match crate::fetch::status_of(&error) {
                Some(status) => {
                    error.context(refusal(&remote.url, repository, commit, status, None, self.token.is_some()))
                }
                None => error,
            })?;
        }
        if let Some(parent) = pointer.parent() {
            std::fs::create_dir_all(parent)?;
        }
        if !pointer.exists() {
            let up = "../".repeat(inside.components().count() + 1);
            let target = format!("{up}blobs/{digest}");
            #[cfg(unix)]
            let made = std::os::unix::fs::symlink(&target, &pointer);
            #[cfg(not(unix))]
            let made = std::fs::copy(&blob, &pointer).map(drop);
            if let Err(error) = made
                && !pointer.exists()
            {
                return Err(error).with_context(|| format!("{} cannot be made", pointer.display()));
            }
        }
        Ok(())
    }

    /// A JSON answer and its `Link` header; what passes (a busy server) is tried again.
    fn ask(&self, path: &str, repository: &str, revision: &str) -> Result<(Value, Option<String>)> {
        let url = format!("{}{path}", self.endpoint);
        let mut last = String::new();
        for attempt in 0..4u32 {
            let mut request = agent(self.stall).get(&url);
            if let Some(token) = &self.token {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            let mut answer = match request.call() {
                Ok(answer) => answer,
                Err(error) => {
                    last = format!(
                        "{url} cannot be reached: {error}. Is the network there? HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 uses what is in the cache"
                    );
                    std::thread::sleep(Duration::from_millis(300 << attempt));
                    continue;
                }
            };
            let status = answer.status().as_u16();
            let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
            if status < 400 {
                let link = header("link");
                let text =
                    answer.body_mut().read_to_string().with_context(|| format!("{url}: the answer broke off"))?;
                return Ok((serde_json::from_str(&text).with_context(|| format!("{url}: not JSON"))?, link));
            }
            last = refusal(&url, repository, revision, status, header("x-error-code").as_deref(), self.token.is_some());
            if status != 429 && status < 500 {
                break;
            }
            let asked = header("retry-after").and_then(|v| v.parse::<u64>().ok()).map(Duration::from_secs);
            std::thread::sleep(asked.unwrap_or(Duration::from_millis(300 << attempt)).min(Duration::from_secs(60)));
        }
        bail!("{last}")
    }
}

struct HubFile {
    path: String,
    /// sha256 of large files, git's own of small ones: the ETag, and the name of the blob.
    digest: String,
}

/// Each refusal with what helps against it.
fn refusal(url: &str, repository: &str, revision: &str, status: u16, code: Option<&str>, token: bool) -> String {
    let page = url.split("/api/").next().unwrap_or(url).split("/resolve/").next().unwrap_or(url);
    match (status, code) {
        (403, _) | (_, Some("GatedRepo")) => format!(
            "{repository}: the hub answered {status}: its owner wants terms to be accepted. Accept them at {}, signed in, and set HF_TOKEN to a token of that account",
            page.trim_end_matches('/')
        ),
        (401, _) if token => format!(
            "{repository}: the hub answered 401: it does not exist, or the token in HF_TOKEN may not read it. Look at the name's spelling; a new token is made at https://huggingface.co/settings/tokens"
        ),
        (401, _) => format!(
            "{repository}: the hub answered 401: it does not exist, or it is private. Look at the name's spelling; for a private one set HF_TOKEN (https://huggingface.co/settings/tokens)"
        ),
        (404, Some("RevisionNotFound")) => {
            format!(
                "{repository} has no revision `{revision}` (404); its branches and tags are listed on its page at the hub"
            )
        }
        (404, _) => format!(
            "{repository}@{revision}: the hub answered 404 to {url}: no such repository, revision or file. Look at the name's spelling (ORG/NAME)"
        ),
        (429, _) => format!(
            "{repository}: the hub answered 429: too many requests. Wait some minutes, or set HF_TOKEN, whose limit is higher; what came so far is kept"
        ),
        (500.., _) => format!(
            "{repository}: the hub answered {status}: its fault, not yours. Try again later, or name a mirror in HF_ENDPOINT; what came so far is kept"
        ),
        _ => format!("{repository}: the hub answered {status} to {url}"),
    }
}

fn is_shard(path: &str) -> bool {
    path.contains("-of-") && [".safetensors", ".bin"].iter().any(|e| path.ends_with(e))
}

/// What of a repository a model needs: every small file that says something, and its weights once, as safetensors where it has them.
fn wanted(files: &[HubFile]) -> BTreeSet<&str> {
    let ends = |path: &str, list: &[&str]| list.iter().any(|e| path.ends_with(e));
    let safe = files.iter().any(|f| f.path.ends_with(".safetensors"));
    let keep = |path: &str| {
        // Copies of the same weights for other programs.
        let other = ["onnx/", "openvino/", "coreml/", "tflite/", "flax/", "original/", "gguf/"];
        if other.iter().any(|o| path.starts_with(o))
            || ends(path, &["training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt"])
        {
            return false;
        }
        if ends(path, &[".safetensors", ".safetensors.index.json"]) {
            return true;
        }
        if ends(path, &[".bin", ".pt", ".pth", ".bin.index.json"]) {
            return !safe;
        }
        ends(path, &[".json", ".txt", ".model", ".jinja", "README.md", "LICENSE", "LICENSE.txt", ".tiktoken"])
    };
    files.iter().map(|f| f.path.as_str()).filter(|p| keep(p)).collect()
}

/// A path or revision as part of an address.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha1::{Digest, Sha1};
    use sha2::Sha256;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
    };

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// What the hub on this machine does beside answering well.
    #[derive(Default)]
    struct Mischief {
        /// Cuts the first answer of the weights in the middle.
        cut: bool,
        /// Falls silent in the middle of the first answer of the weights.
        stall: bool,
        /// Promises fewer bytes than there are.
        short: bool,
        /// Sends other bytes than the checksum says.
        wrong: bool,
        /// Answers every question with this.
        status: Option<(u16, &'static str)>,
        /// Refuses the first so many questions with 503.
        busy: usize,
        /// Has no tree.
        treeless: bool,
    }

    struct Fake {
        endpoint: String,
        /// (method and path, range, whether a token came) of each question.
        asked: Arc<Mutex<Vec<(String, Option<u64>, bool)>>>,
    }

    fn files() -> Vec<(&'static str, Vec<u8>)> {
        let shard = |n: u8| (0..60_000u32).map(|i| (i as u8).wrapping_mul(n)).collect::<Vec<u8>>();
        let index =
            br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
        vec![
            ("config.json", b"{\"model_type\": \"bert\"}".to_vec()),
            ("1_Pooling/config.json", b"{}".to_vec()),
            ("model.safetensors.index.json", index.to_vec()),
            ("model-00001-of-00002.safetensors", shard(7)),
            ("model-00002-of-00002.safetensors", shard(11)),
            ("pytorch_model.bin", b"the same again".to_vec()),
            ("onnx/model.onnx", b"and again".to_vec()),
        ]
    }

    fn digest(path: &str, bytes: &[u8]) -> String {
        if path.ends_with(".safetensors") {
            return hex(&Sha256::digest(bytes));
        }
        hex(&Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
    }

    fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &[u8], length: usize, sent: usize) {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(&body[..sent.min(body.len())]);
        let _ = stream.flush();
    }

    fn hub(mischief: Mischief) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let own = endpoint.clone();
        let (mischief, weights) = (Arc::new(mischief), Arc::new(AtomicUsize::new(0)));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, own, mischief, weights) = (log.clone(), own.clone(), mischief.clone(), weights.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &log, &own, &mischief, &weights));
            }
        });
        Fake { endpoint, asked }
    }

    fn serve(
        mut stream: TcpStream,
        log: &Mutex<Vec<(String, Option<u64>, bool)>>,
        own: &str,
        mischief: &Mischief,
        weights: &AtomicUsize,
    ) {
        let (mut request, mut byte) = (Vec::new(), [0u8; 1]);
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            request.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let line: Vec<&str> = text.split_whitespace().take(2).collect();
        let [method, path] = line[..] else { return };
        let lower = text.to_lowercase();
        let range = lower.split("range: bytes=").nth(1).and_then(|r| r.split('-').next()?.parse::<u64>().ok());
        let number = {
            let mut log = log.lock().unwrap();
            log.push((format!("{method} {path}"), range, lower.contains("authorization: bearer")));
            log.len()
        };
        if let Some((status, code)) = mischief.status {
            return answer(&mut stream, status, &format!("X-Error-Code: {code}\r\nRetry-After: 0\r\n"), b"", 0, 0);
        }
        if number <= mischief.busy {
            return answer(&mut stream, 503, "Retry-After: 0\r\n", b"", 0, 0);
        }
        if path.starts_with("/api/models/org/name/revision/") {
            let siblings: Vec<Value> = files().iter().map(|(p, _)| serde_json::json!({ "rfilename": p })).collect();
            let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
            return answer(&mut stream, 200, "", body.as_bytes(), body.len(), body.len());
        }
        if path.starts_with("/api/models/org/name/tree/") && !mischief.treeless {
            // Two pages.
            let second = path.contains("cursor=2");
            let all = files();
            let half = if second { &all[4..] } else { &all[..4] };
            let entry = |(path, bytes): &(&str, Vec<u8>)| {
                let digest = digest(path, bytes);
                if path.ends_with(".safetensors") {
                    serde_json::json!({ "type": "file", "path": path, "oid": "0".repeat(40), "lfs": { "oid": digest } })
                } else {
                    serde_json::json!({ "type": "file", "path": path, "oid": digest })
                }
            };
            let body = Value::from(half.iter().map(entry).collect::<Vec<_>>()).to_string();
            let link =
                format!("Link: <{own}/api/models/org/name/tree/{COMMIT}?recursive=true&cursor=2>; rel=\"next\"\r\n");
            return answer(&mut stream, 200, if second { "" } else { &link }, body.as_bytes(), body.len(), body.len());
        }
        if let Some(name) = path.strip_prefix(&format!("/org/name/resolve/{COMMIT}/")) {
            let Some((_, bytes)) = files().into_iter().find(|(p, _)| *p == name) else {
                return answer(&mut stream, 404, "X-Error-Code: EntryNotFound\r\n", b"", 0, 0);
            };
            if method == "HEAD" {
                let tag = format!("ETag: \"{}\"\r\n", digest(name, &bytes));
                return answer(&mut stream, 200, &tag, b"", bytes.len(), 0);
            }
            if !name.ends_with(".safetensors") {
                return answer(&mut stream, 200, "", &bytes, bytes.len(), bytes.len());
            }
            // Large files lie elsewhere, as the hub's do.
            let place = own.replace("127.0.0.1", "localhost");
            return answer(&mut stream, 302, &format!("Location: {place}/elsewhere/{name}\r\n"), b"", 0, 0);
        }
        if let Some(name) = path.strip_prefix("/elsewhere/") {
            let (_, mut bytes) = files().into_iter().find(|(p, _)| *p == name).unwrap();
            let first = weights.fetch_add(1, Ordering::SeqCst) == 0;
            if mischief.wrong {
                bytes[100] ^= 1;
            }
            let from = usize::try_from(range.unwrap_or(0)).unwrap().min(bytes.len());
            let (rest, status) = (&bytes[from..], if range.is_some() { 206 } else { 200 });
            let half = rest.len() / 2;
            if mischief.short {
                return answer(&mut stream, status, "", rest, half, half);
            }
            let sent = if first && (mischief.cut || mischief.stall) { half } else { rest.len() };
            answer(&mut stream, status, "", rest, rest.len(), sent);
            if first && mischief.stall {
                std::thread::sleep(Duration::from_secs(4));
            }
            return;
        }
        answer(&mut stream, 404, "X-Error-Code: RepoNotFound\r\n", b"", 0, 0);
    }

    fn client(fake: &Fake, cache: &Path) -> Hub {
        Hub {
            endpoint: fake.endpoint.clone(),
            cache: cache.to_owned(),
            token: Some("secret".into()),
            offline: false,
            stall: Duration::from_millis(250),
        }
    }

    fn whole(snapshot: &Path) {
        for (path, bytes) in files() {
            let wanted = !path.starts_with("onnx") && path != "pytorch_model.bin";
            assert_eq!(std::fs::read(snapshot.join(path)).ok(), wanted.then_some(bytes), "{path}");
        }
    }

    #[test]
    fn a_model_comes_whole_into_the_layout_of_huggingface_hub_and_is_found_offline() {
        let cache = tempfile::tempdir().unwrap();
        let fake = hub(Mischief { busy: 2, ..Mischief::default() });
        let own = client(&fake, cache.path());
        let snapshot = own.pull("org/name").unwrap();
        whole(&snapshot);
        let folder = cache.path().join("models--org--name");
        assert_eq!(snapshot, folder.join("snapshots").join(COMMIT));
        assert_eq!(std::fs::read_to_string(folder.join("refs/main")).unwrap(), COMMIT);
        let target = std::fs::read_link(snapshot.join("1_Pooling/config.json")).unwrap();
        assert!(target.starts_with("../../../blobs"), "{target:?}");
        // The token goes to the hub, and nowhere else.
        for (path, _, token) in fake.asked.lock().unwrap().iter() {
            assert_eq!(*token, !path.contains("/elsewhere/"), "{path}");
        }
        // Whole already: no file is asked for again.
        let before = fake.asked.lock().unwrap().len();
        own.pull("org/name@main").unwrap();
        let asked = fake.asked.lock().unwrap()[before..].to_vec();
        assert!(asked.iter().all(|(path, _, _)| path.contains("/api/")), "{asked:?}");
        let offline = Hub { offline: true, endpoint: "http://127.0.0.1:1".into(), ..client(&fake, cache.path()) };
        assert_eq!(offline.pull("org/name").unwrap(), snapshot);
        assert_eq!(offline.pull(&format!("org/name@{COMMIT}")).unwrap(), snapshot);
        assert!(offline.pull("org/other").unwrap_err().to_string().contains("HF_HUB_OFFLINE"));
    }

    #[test]
    fn a_cut_and_a_silent_connection_go_on_where_they_stopped_and_two_at_once_fetch_once() {
        for mischief in [
            Mischief { cut: true, ..Mischief::default() },
            Mischief { stall: true, ..Mischief::default() },
            Mischief { treeless: true, ..Mischief::default() },
        ] {
            let broken = mischief.cut || mischief.stall;
            let cache = tempfile::tempdir().unwrap();
            let fake = hub(mischief);
            let pull = || client(&fake, cache.path()).pull("org/name").unwrap();
            std::thread::scope(|scope| {
                let other = scope.spawn(pull);
                whole(&pull());
                whole(&other.join().unwrap());
            });
            let asked = fake.asked.lock().unwrap();
            let weights: Vec<_> = asked.iter().filter(|(path, _, _)| path.contains("/elsewhere/")).collect();
            assert_eq!(weights.iter().any(|(_, range, _)| range.is_some()), broken);
            assert_eq!(weights.len(), if broken { 3 } else { 2 }, "{weights:?}");
        }
    }

    #[test]
    fn lies_about_length_and_content_are_found_and_refusals_come_with_a_remedy() {
        let told = |mischief: Mischief, name: &str| {
            let cache = tempfile::tempdir().unwrap();
            let fake = hub(mischief);
            let text = format!("{:#}", client(&fake, cache.path()).pull(name).unwrap_err());
            // Nothing broken is ever in its place, and no name stands for it.
            assert!(!cache.path().join("models--org--name/refs/main").exists());
            text
        };
        for mischief in
            [Mischief { wrong: true, ..Mischief::default() }, Mischief { short: true, ..Mischief::default() }]
        {
            let text = told(mischief, "org/name");
            assert!(text.contains("its sha256 is") && text.contains("thrown away"), "{text}");
        }
        for (status, code, remedy) in [
            (401, "RepoNotFound", "token"),
            (403, "GatedRepo", "Accept them at http://127.0.0.1"),
            (404, "RepoNotFound", "spelling"),
            (404, "RevisionNotFound", "no revision `main`"),
            (429, "", "too many requests"),
            (502, "", "HF_ENDPOINT"),
        ] {
            let text = told(Mischief { status: Some((status, code)), ..Mischief::default() }, "org/name");
            assert!(text.contains(remedy) && text.contains(&status.to_string()), "{text}");
        }
        assert!(told(Mischief::default(), "../etc/passwd").contains("no name of the hub"));
    }
}
