//! Data of one's own in inputs and variables, and values of `--set`.

use super::{super::*, Project, steps};
use crate::{
    error::describe,
    fetch::hex,
    testing::{Server, tar_gz},
};
use sha2::{Digest, Sha256};

/// A registry file with one data set, from a server.
fn birds(server: &Server, archive: &[u8]) -> String {
    let sum = hex(&Sha256::digest(archive));
    let url = format!("{}/birds.tar.gz", server.url);
    format!("[[data]]\nname = \"birds\"\nfrom = {{ url = [{{ url = \"{url}\", sha256 = \"{sum}\" }}] }}\n")
}

#[test]
fn fetched_files_are_inputs_like_others_and_variables_may_name_them() {
    let archive = tar_gz(&[("a.txt", b"a bird\n")]);
    let server = Server::start(&[("birds.tar.gz", &archive)]);
    let copy = ("copy", "cp ${from}/a.txt runs/a.txt", "inputs = [\"${from}/a.txt\"]\noutputs = [\"runs/a.txt\"]");
    let text = "registry = \"sources.toml\"\ninclude = [\"other.toml\"]\nvars = { from = \"${data.birds}\" }\n"
        .to_owned()
        + &steps(&[copy]);
    let project = Project::new(&text);
    project.write("sources.toml", &birds(&server, &archive));
    // Both files name the registry.
    project.write("other.toml", "registry = \"sources.toml\"\n");
    let dry = Options { dry_run: true, ..Options::default() };
    assert_eq!(project.run_with(&dry).unwrap()[0].state, "would_run");
    assert_eq!(project.run(&[]).unwrap(), ["done"]);
    assert_eq!(project.text("runs/a.txt"), "a bird\n");
    assert_eq!(project.run(&[]).unwrap(), ["skipped"]);
    assert_eq!(server.count(), 1);
}

#[test]
fn values_of_set_stay_as_they_are_written() {
    let text = "vars = { version = \"1.10\", here_too = \"${here}\", literal = \"$${here}\" }\n".to_owned()
        + &steps(&[(
            "a",
            "printf '%s|%s|%s|%s' '${version}' \"$V\" '${here_too}' '${literal}' > runs/a",
            "outputs = [\"runs/a\"]\nenv = { V = 1 }",
        )]);
    let project = Project::new(&text);
    let here = project.folder.path().canonicalize().unwrap().display().to_string();
    let show = |version: &str, v: &str| format!("{version}|{v}|{}|${{here}}", project.folder.path().display());
    project.run(&[]).unwrap();
    assert_eq!(project.text("runs/a"), show("1.10", "1"));
    for (set, expected) in [
        ("version=1.20", show("1.20", "1")),
        ("version=1e-3", show("1e-3", "1")),
        ("version=007", show("007", "1")),
        ("version=\"2.0\"", show("2.0", "1")),
        ("version=", show("", "1")),
        ("version=a=b c", show("a=b c", "1")),
        ("version=${here}", show(&project.folder.path().display().to_string(), "1")),
        ("a.env.V=0.50", show("1.10", "0.50")),
        ("vars.version=3", show("3", "1")),
    ] {
        project.run(&[set]).unwrap_or_else(|e| panic!("{set}: {}", describe(&e)));
        assert_eq!(project.text("runs/a"), expected, "{set} in {here}");
    }
    // A number where a text is expected.
    std::fs::create_dir(project.at("2024")).unwrap();
    assert_eq!(project.run(&["a.cwd=2024", "a.run=[\"sh\", \"-c\", \"pwd > ../runs/a\"]"]).unwrap(), ["done"]);
    assert!(project.text("runs/a").trim_end().ends_with("/2024"));
    assert!(project.error(&["a.fresh=3"]).contains("fresh"));
    let none = Project::new(&steps(&[("a", "true", "")]));
    assert!(none.error(&["b=1"]).contains("has no variable `b`; it has none"));
}

#[test]
fn a_pipeline_is_the_same_one_by_whichever_path_it_is_named() {
    let project = Project::new(&steps(&[("a", "true", "")]));
    project.write("a b/é/p.toml", &steps(&[("a", "true", "")]));
    let plain = load(&project.at("a b/é/p.toml"), &Options::default()).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(project.at("a b/é"), project.at("link")).unwrap();
        assert_eq!(load(&project.at("link/p.toml"), &Options::default()).unwrap().file, plain.file);
        // `..` is the folder above what the link leads to.
        project.write("a b/q.toml", &steps(&[("q", "true", "")]));
        assert_eq!(load(&project.at("link/../q.toml"), &Options::default()).unwrap().steps[0].name, "q");
    }
    let error = describe(&load(&project.at("none/p.toml"), &Options::default()).unwrap_err());
    assert!(error.contains("none/p.toml cannot be read"), "{error}");
    let error = describe(&load(project.folder.path(), &Options::default()).unwrap_err());
    assert!(error.contains("cannot be read"), "{error}");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let folder = project.folder.path().join(std::ffi::OsStr::from_bytes(b"\xff"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::copy(project.at("p.toml"), folder.join("p.toml")).unwrap();
        let error = describe(&load(&folder.join("p.toml"), &Options::default()).unwrap_err());
        assert!(error.contains("its path is not UTF-8"), "{error}");
    }
}
