//! The built-in registry, and items of one's own from a server on this machine.

use super::*;
use crate::{
    error::describe,
    testing::{Server, tar_gz},
};

#[test]
fn the_registry_is_valid_and_errors_suggest_the_nearest_name() {
    let registry = Registry::built_in().unwrap();
    for kind in [Kind::Data, Kind::Models] {
        let entries = registry.entries(kind);
        assert!(!entries.is_empty() && entries.iter().all(|e| !e.license.is_empty() && !e.about.is_empty()));
    }
    let text = fetch(Kind::Models, "all-minilm-l6").unwrap_err().to_string();
    assert!(text.contains("did you mean `all-MiniLM-L6-v2`"), "{text}");
}

/// A registry with one more data set and a cache of its own; the folder of the data set.
fn registry(text: &str, cache: &tempfile::TempDir) -> (Registry, PathBuf) {
    let mut registry = Registry::at(cache.path().to_owned()).unwrap();
    registry.add(toml::from_str(text).unwrap()).unwrap();
    let folder = registry.folder(Kind::Data, "birds").unwrap();
    assert!(folder.starts_with(cache.path().join("data")));
    (registry, folder)
}

#[test]
fn archives_and_files_of_addresses_are_fetched_once_checked_and_unpacked() {
    let archive = tar_gz(&[("birds-1.0/a/1.txt", b"one"), ("birds-1.0/b.txt", b"two")]);
    let server = Server::start(&[("birds.tar.gz", &archive), ("labels.csv", b"id,label\n")]);
    let text = format!(
        "[[data]]\nname = \"birds\"\nstrip = 1\nkeep = [\"birds-1.0/a/\"]\nfiles = {{ \"README\" = \"mine\" }}\nfrom = {{ url = [\n\
         {{ url = \"{0}/birds.tar.gz\", sha256 = \"{1}\", size = {2} }},\n{{ url = \"{0}/labels.csv\", sha256 = \"{3}\" }} ] }}\n",
        server.url,
        hex(&Sha256::digest(&archive)),
        archive.len(),
        hex(&Sha256::digest(b"id,label\n")),
    );
    let cache = tempfile::tempdir().unwrap();
    let (registry, folder) = registry(&text, &cache);
    assert!(!registry.is_cached(Kind::Data, "birds"));
    assert_eq!(registry.fetch(Kind::Data, "birds").unwrap(), folder);
    assert_eq!(std::fs::read(folder.join("a/1.txt")).unwrap(), b"one");
    assert_eq!(std::fs::read(folder.join("labels.csv")).unwrap(), b"id,label\n");
    assert_eq!(std::fs::read(folder.join("README")).unwrap(), b"mine");
    assert!(!folder.join("b.txt").exists() && registry.is_cached(Kind::Data, "birds"));
    assert_eq!(server.count(), 2);
    registry.fetch(Kind::Data, "birds").unwrap();
    assert_eq!(server.count(), 2);
}

#[test]
fn archives_that_lead_out_of_the_folder_and_wrong_checksums_leave_nothing() {
    let evil = tar_gz(&[("../evil.txt", b"x"), ("good.txt", b"y")]);
    let server = Server::start(&[("evil.tar.gz", &evil), ("data.bin", b"1234")]);
    let item = |file: &str, sha256: &str| {
        let url = format!("{}/{file}", server.url);
        format!("[[data]]\nname = \"birds\"\nfrom = {{ url = [{{ url = \"{url}\", sha256 = \"{sha256}\" }}] }}\n")
    };
    for (text, part) in [
        (item("evil.tar.gz", &hex(&Sha256::digest(&evil))), "`../evil.txt` in it leads out of the folder"),
        (item("data.bin", &"0".repeat(64)), "its sha256 is 03ac674216f3e15c761ee1a5e255f067"),
    ] {
        let cache = tempfile::tempdir().unwrap();
        let (registry, folder) = registry(&text, &cache);
        let error = describe(&registry.fetch(Kind::Data, "birds").unwrap_err());
        assert!(error.contains(part), "{error}");
        assert!(!folder.exists() && !folder.with_file_name("evil.txt").exists());
        for suffix in ["partial", "downloads"] {
            assert!(!with_suffix(&folder, suffix).exists(), "{suffix}");
        }
    }
}

#[test]
fn wrong_items_are_refused() {
    let file = |url: &str, sha256: &str| format!("url = [{{ url = \"{url}\", sha256 = \"{sha256}\" }}]");
    let sum = "0".repeat(64);
    for (name, from, part) in [
        ("emoji", "pip = [\"a\"]".to_owned(), "the name `emoji` is taken"),
        ("../a", "pip = [\"a\"]".to_owned(), "cannot be the name of a folder"),
        ("a", "pip = [\"--index-url\"]".to_owned(), "not the name of a package"),
        ("a", "pip = []".to_owned(), "names nothing to fetch"),
        ("a", file("ftp://a/b", &sum), "a: from.url: found `ftp://a/b`, expected an address that starts with https://"),
        ("a", file("https://a/b", "12"), "64 hexadecimal digits"),
        ("a", file("https://a/", &sum), "set `name`"),
        (
            "a",
            format!("url = [{0}, {0}]", "{ url = \"https://a/x.csv\", sha256 = \"S\" }".replace('S', &sum)),
            "two files are called `x.csv`",
        ),
        ("a", "hub = \"a/b/c\"".to_owned(), "not a name of the hub"),
    ] {
        let items: Items = toml::from_str(&format!("[[data]]\nname = \"{name}\"\nfrom = {{ {from} }}\n")).unwrap();
        let text = describe(&Registry::built_in().unwrap().add(items).unwrap_err());
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_was_downloaded_before_an_error_is_used_by_the_next_attempt() {
    let server = Server::start(&[("a.csv", b"1,2\n")]);
    let cache = tempfile::tempdir().unwrap();
    let text = format!(
        "[[data]]\nname = \"birds\"\nfrom = {{ url = [{{ url = \"{0}/a.csv\", sha256 = \"{1}\" }}, {{ url = \"{0}/none\", sha256 = \"{1}\" }}] }}\n",
        server.url,
        hex(&Sha256::digest(b"1,2\n")),
    );
    let (registry, folder) = registry(&text, &cache);
    for requests in [2, 3] {
        assert!(describe(&registry.fetch(Kind::Data, "birds").unwrap_err()).contains("answered 404"));
        assert_eq!(server.count(), requests);
        assert!(!folder.exists());
    }
}

#[test]
fn a_folder_that_mm_did_not_fetch_is_not_replaced() {
    let server = Server::start(&[("a.csv", b"1,2\n")]);
    let cache = tempfile::tempdir().unwrap();
    let text = format!(
        "[[data]]\nname = \"birds\"\nfrom = {{ url = [{{ url = \"{}/a.csv\", sha256 = \"{}\" }}] }}\n",
        server.url,
        hex(&Sha256::digest(b"1,2\n")).to_uppercase(),
    );
    let (registry, folder) = registry(&text, &cache);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("mine.txt"), "years").unwrap();
    let error = describe(&registry.fetch(Kind::Data, "birds").unwrap_err());
    assert!(error.contains("was not fetched by mm") && server.count() == 0, "{error}");
    assert_eq!(std::fs::read(folder.join("mine.txt")).unwrap(), b"years");
    std::fs::remove_file(folder.join("mine.txt")).unwrap();
    registry.fetch(Kind::Data, "birds").unwrap();
}

#[cfg(unix)]
#[test]
fn links_of_a_package_are_not_followed() {
    let top = tempfile::tempdir().unwrap();
    let (from, to, other) = (top.path().join("from"), top.path().join("to"), top.path().join("other"));
    for folder in [&from, &to, &other] {
        std::fs::create_dir(folder).unwrap();
    }
    std::fs::write(other.join("mine.txt"), "years").unwrap();
    std::os::unix::fs::symlink(&other, from.join("link")).unwrap();
    std::fs::write(from.join("a.txt"), "a").unwrap();
    let items: Items = toml::from_str("[[data]]\nname = \"a\"\nfrom = { apt = [\"a\"] }\n").unwrap();
    unpack::relocate(&from, &from, &to, &items.data[0]).unwrap();
    assert_eq!(std::fs::read(other.join("mine.txt")).unwrap(), b"years");
    assert!(to.join("link").is_symlink() && to.join("a.txt").is_file());
}
