//! Projects of many kinds are set up, or refused without a change.

use super::*;
use crate::error::describe;
use std::collections::BTreeMap;

const LIBTORCH: &str = "/opt/libtorch";

fn merged(text: &str) -> String {
    let value = toml::Value::Table(toml::from_str(text).unwrap());
    merge(text, Path::new(LIBTORCH), Path::new("/cache/libtorch"), flags_of(&value)).unwrap()
}

fn parsed(text: &str) -> toml::Table {
    toml::from_str(text).unwrap()
}

const LINUX: &str = "cfg(target_os = \"linux\")";

#[test]
fn new_settings_name_libtorch_and_its_rpath_and_stay_the_same_the_second_time() {
    let text = merged("");
    let value = parsed(&text);
    assert_eq!(value["env"]["LIBTORCH"].as_str(), Some(LIBTORCH));
    assert_eq!(value["env"]["GOMP_SPINCOUNT"].as_str(), Some("1000"));
    let expected = ["-C", "link-arg=-Wl,-rpath,/opt/libtorch/lib"].map(toml::Value::from);
    assert_eq!(value["target"][LINUX]["rustflags"].as_array().unwrap(), &expected);
    assert_eq!(value["build"]["rustdocflags"].as_array().unwrap(), &expected);
    assert!(text.starts_with("# Written by `mm setup`"), "{text}");
    assert_eq!(merged(&text), text);
}

#[test]
fn what_the_settings_say_stays() {
    let text = "# mine\n[alias]\nb = \"build\" # short\n\n[env]\nMY = \"1\"\nOMP_WAIT_POLICY = \"active\"\n\n\
                [target.'cfg(target_os = \"linux\")']\nrustflags = [\n  \"-C\", \"target-cpu=native\", # fast\n]\n";
    let merged = merged(text);
    for part in ["# mine\n[alias]\nb = \"build\" # short\n", "MY = \"1\"", "\"target-cpu=native\"", "# fast"] {
        assert!(merged.contains(part), "{part}: {merged}");
    }
    let value = parsed(&merged);
    assert_eq!(value["target"][LINUX]["rustflags"].as_array().unwrap().len(), 4);
    assert!(value["env"].get("GOMP_SPINCOUNT").is_none());
}

#[test]
fn flags_go_where_cargo_reads_the_ones_that_are_there() {
    // Flags of the target would hide those of [build].
    let value = parsed(&merged("[build]\nrustflags = \"-C target-cpu=native\"\n"));
    let flags: Vec<&str> = value["build"]["rustflags"].as_array().unwrap().iter().filter_map(|f| f.as_str()).collect();
    assert_eq!(flags, ["-C", "target-cpu=native", "-C", "link-arg=-Wl,-rpath,/opt/libtorch/lib"]);
    assert!(value.get("target").is_none_or(|t| t.as_table().unwrap().is_empty()));
    // The flags of an earlier set-up are replaced.
    let old = "[target.'cfg(target_os = \"linux\")']\nrustflags = [\"-C\", \"link-arg=-Wl,-rpath,/cache/libtorch/2.10/lib\", \"-g\"]\n";
    let value = parsed(&merged(old));
    let flags = value["target"][LINUX]["rustflags"].as_array().unwrap();
    assert_eq!((flags.len(), flags[1].as_str()), (3, Some("link-arg=-Wl,-rpath,/opt/libtorch/lib")));
    // Flags of other targets do not hide those of [build].
    for target in ["wasm32-unknown-unknown", "'cfg(windows)'", "'cfg(not(unix))'"] {
        let text =
            format!("[target.{target}]\nrustflags = [\"-g\"]\n[build]\nrustflags = [\"-C\", \"target-cpu=native\"]\n");
        let value = parsed(&merged(&text));
        assert_eq!(value["build"]["rustflags"].as_array().unwrap().len(), 4, "{target}");
        assert!(value["target"].get(LINUX).is_none(), "{target}");
    }
    for target in [host(), "'cfg(unix)'".into(), "'cfg(all(target_os = \"linux\", not(target_env = \"x\")))'".into()] {
        let text = format!("target.{target}.rustflags = [\"-g\"]\nenv.A = \"1\"\nbuild.rustflags = [\"-O\"]\n");
        let value = parsed(&merged(&text));
        assert_eq!(value["target"][LINUX]["rustflags"].as_array().unwrap().len(), 2, "{target}");
        assert_eq!(value["build"]["rustflags"].as_array().unwrap().len(), 1, "{target}");
        assert_eq!((value["env"]["A"].as_str(), value["env"]["LIBTORCH"].as_str()), (Some("1"), Some(LIBTORCH)));
    }
    // Comments between the flags stay where the old flag is replaced.
    let old = "[target.'cfg(target_os = \"linux\")']\nrustflags = [\n  \"-g\", # mine\n  \"-C\", \"link-arg=-Wl,-rpath,/cache/libtorch/2.10/lib\",\n  \"-O\", # fast\n]\n";
    let text = merged(old);
    assert!(text.contains("# mine") && text.contains("# fast") && !text.contains("2.10"), "{text}");
    assert_eq!(parsed(&text)["target"][LINUX]["rustflags"].as_array().unwrap().len(), 4, "{text}");
    // A LIBTORCH of an earlier set-up that is a table.
    let value = parsed(&merged("[env]\nLIBTORCH = { value = \"/cache/libtorch/2.10/torch\", force = true }\n"));
    assert_eq!(value["env"]["LIBTORCH"]["value"].as_str(), Some(LIBTORCH));
    assert_eq!(value["env"]["LIBTORCH"]["force"].as_bool(), Some(true));
    let inline = parsed(&merged("env = { A = \"1\" }\n"));
    assert_eq!((inline["env"]["A"].as_str(), inline["env"]["LIBTORCH"].as_str()), (Some("1"), Some(LIBTORCH)));
    let text = merge("env = 3", Path::new(LIBTORCH), Path::new("/c"), Flags::default()).unwrap_err();
    assert!(text.contains("`env` is not a table"), "{text}");
}

/// Every file below a folder with its bytes.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn projects_that_cannot_be_set_up_are_refused_and_not_changed() {
    let top = tempfile::tempdir().unwrap();
    let project = |name: &str, files: &[(&str, &str)]| {
        let folder = top.path().join(name);
        for (file, text) in files {
            write_file(&folder.join(file), text.as_bytes()).unwrap();
        }
        folder
    };
    let manifest = ("Cargo.toml", "[package]\nname = \"a\"\n");
    let refuse = |folder: &Path, part: &str| {
        let before = contents(top.path());
        let error = check(folder).map(drop).and_then(|()| {
            let (config, inherited) = (folder.join(".cargo/config.toml"), inherited(folder)?);
            let text = read(&config)?.unwrap_or_default();
            merge_into(&config, &text, Path::new(LIBTORCH), &inherited).map(drop)
        });
        let error = describe(&error.unwrap_err());
        assert!(error.contains(part) && error.contains(&top.path().display().to_string()), "{error}");
        assert_eq!(contents(top.path()), before);
    };
    refuse(&top.path().join("none"), "no such folder");
    refuse(&project("no-manifest", &[("a.rs", "")]), "no Cargo.toml");
    refuse(&project("file", &[manifest, (".cargo", "")]), "expected the folder of cargo's settings");
    refuse(&project("legacy", &[manifest, (".cargo/config", "")]), "rename it to config.toml");
    refuse(&project("broken", &[manifest, (".cargo/config.toml", "[env\n")]), "config.toml: ");
    let elsewhere = "[env]\nLIBTORCH = \"/usr/lib/torch\"\n";
    let part = "sets LIBTORCH to /usr/lib/torch (no libtorch), and mm needs libtorch 2.11.0";
    refuse(&project("elsewhere", &[manifest, (".cargo/config.toml", elsewhere)]), part);
    let relative = "[env]\nLIBTORCH = { value = \"torch\", relative = true }\n";
    refuse(&project("relative", &[manifest, (".cargo/config.toml", relative)]), "relative/torch (no libtorch)");
    let locked = project("locked", &[manifest, (".cargo/config.toml", "[env]\n")]);
    let set_read_only = |is_read_only: bool| {
        let file = locked.join(".cargo/config.toml");
        let mut permissions = std::fs::metadata(&file).unwrap().permissions();
        permissions.set_readonly(is_read_only);
        std::fs::set_permissions(&file, permissions).unwrap();
    };
    set_read_only(true);
    refuse(&locked, "it is read-only; make it writable");
    set_read_only(false);
    let inner = project("outer/inner", &[manifest]);
    project("outer", &[(".cargo/config.toml", elsewhere)]);
    refuse(&inner, "outer/.cargo/config.toml: it sets LIBTORCH");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let folder = project("read-only", &[manifest]);
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o555)).unwrap();
        // The administrator may write everywhere.
        if File::create(folder.join("probe")).is_err() {
            refuse(&folder, "check that it is not read-only");
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_project_is_set_up_with_the_libtorch_that_is_there() {
    if std::env::var_os("LIBTORCH").is_none() {
        eprintln!("skipped: LIBTORCH is not set, and a test does not download it");
        return;
    }
    let libtorch = find_or_fetch(&Request::default()).unwrap();
    let top = tempfile::tempdir().unwrap();
    write_file(&top.path().join("Cargo.toml"), b"[package]\nname = \"a\"\n").unwrap();
    let first = set_up(top.path(), &Request::default()).unwrap();
    assert!(first.changed);
    let value = parsed(&std::fs::read_to_string(&first.config).unwrap());
    assert_eq!(value["env"]["LIBTORCH"].as_str(), Some(libtorch.folder.display().to_string().as_str()));
    assert!(!set_up(top.path(), &Request::default()).unwrap().changed);
}

#[test]
fn a_member_of_a_workspace_is_told_where_cargo_reads_settings() {
    let top = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| write_file(&top.path().join(file), text.as_bytes()).unwrap();
    write("Cargo.toml", "[workspace]\nmembers = [\"a\"]\nexclude = [\"out\"]\n");
    write("a/Cargo.toml", "[package]\nname = \"a\"\n");
    write("out/b/Cargo.toml", "[package]\nname = \"b\"\n");
    write("own/Cargo.toml", "[package]\nname = \"c\"\n[workspace]\n");
    let warning = workspace_warning(&top.path().join("a")).unwrap();
    assert!(warning.contains(&format!("lies in the workspace {}", top.path().display())), "{warning}");
    for folder in ["", "out/b", "own"] {
        assert_eq!(workspace_warning(&top.path().join(folder)), None, "{folder}");
    }
}
