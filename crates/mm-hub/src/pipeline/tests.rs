//! Pipelines that run small shell commands, and files that are refused.

mod failures;
mod kept;
mod sources;

use super::*;
use crate::{
    error::describe,
    fetch::hex,
    testing::{Server, tar_gz},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{read_to_string, write},
    sync::atomic::AtomicBool,
    time::Duration,
};

/// A folder with a pipeline file.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new(text: &str) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap() };
        project.write("p.toml", text);
        project
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        write(self.at(name), text).unwrap();
    }

    fn text(&self, name: &str) -> String {
        read_to_string(self.at(name)).unwrap_or_default()
    }

    fn run_with(&self, options: &Options) -> Result<Vec<StepReport>> {
        let mm = || Ok(PathBuf::from("/bin/echo"));
        let stop = AtomicBool::new(false);
        let registry = Registry::at(self.at("cache")).unwrap();
        let overrides: Vec<&str> = options.overrides.iter().map(String::as_str).collect();
        let read = |file: &Path| read_to_string(file).at(file, "read");
        let pipeline = parse(&self.at("p.toml"), &overrides, registry, &read)?;
        Runner { mm: &mm, stop: &stop, keeps_stdout: true }.run(&pipeline, options)
    }

    /// The state of each step after a run with these `--set`.
    fn run(&self, overrides: &[&str]) -> Result<Vec<&'static str>> {
        let overrides = overrides.iter().map(ToString::to_string).collect();
        Ok(self.run_with(&Options { overrides, ..Options::default() })?.iter().map(|r| r.state).collect())
    }

    fn error(&self, overrides: &[&str]) -> String {
        describe(&self.run(overrides).unwrap_err())
    }
}

/// A file of steps that run shell commands: name, command, other keys.
fn steps(steps: &[(&str, &str, &str)]) -> String {
    let step = |(name, command, more): &(&str, &str, &str)| {
        format!("[[step]]\nname = \"{name}\"\nrun = [\"sh\", \"-c\", '''{command}''']\n{more}\n")
    };
    format!("about = \"a test\"\n{}", steps.iter().map(step).collect::<String>())
}

#[test]
fn completed_steps_are_skipped_until_something_changes() {
    let text = "vars = { word = \"one\" }\n".to_owned()
        + &steps(&[
            ("first", "echo ${word} >> log; cp log runs/out1", "outputs = [\"runs/out1\"]\ninputs = [\"data.txt\"]"),
            (
                "second",
                "test -f allow && cp runs/out1 runs/out2",
                "inputs = [\"runs/out1\"]\noutputs = [\"runs/out2\"]",
            ),
        ]);
    let project = Project::new(&text);
    project.write("data.txt", "1");
    let error = project.error(&[]);
    assert!(
        error.contains("step `second` failed; 1 other step is complete") && error.contains("exit status: 1"),
        "{error}"
    );
    project.write("allow", "");
    assert_eq!(project.run(&[]).unwrap(), ["skipped", "done"]);
    assert_eq!(project.run(&[]).unwrap(), ["skipped", "skipped"]);
    assert_eq!(project.text("log"), "one\n");
    // A change of a variable, of an input, and of an output.
    assert_eq!(project.run(&["word=two"]).unwrap(), ["done", "done"]);
    assert_eq!(project.text("runs/out2"), "one\ntwo\n");
    project.write("data.txt", "2");
    assert_eq!(project.run(&["word=two"]).unwrap(), ["done", "done"]);
    std::fs::remove_file(project.at("runs/out2")).unwrap();
    assert_eq!(project.run(&["word=two"]).unwrap(), ["skipped", "done"]);
    let from = Options { from: Some("second".into()), overrides: vec!["word=two".into()], ..Options::default() };
    assert_eq!(project.run_with(&from).unwrap()[1].reason, "--from");
    let wrong = Options { from: Some("third".into()), ..Options::default() };
    assert!(describe(&project.run_with(&wrong).unwrap_err()).contains("no such step; the steps are first, second"));
}

#[test]
fn a_step_is_known_by_what_it_does_whatever_its_name_and_not_when_another_one_overwrote_it() {
    let train = |name: &str, out: &str| {
        let command = "echo ${which} >> log; echo ${which} > ".to_owned() + out;
        let head = "vars = { which = \"vae\" }\n".to_owned();
        head + &steps(&[(name, &command, &format!("outputs = [\"{out}\"]\nfresh = true"))])
    };
    // vae → gan → vae with an output each: nothing is trained again.
    let project = Project::new(&train("train", "runs/${which}"));
    for (which, expected) in [("vae", "done"), ("gan", "done"), ("vae", "skipped"), ("gan", "skipped")] {
        assert_eq!(project.run(&[&format!("which={which}")]).unwrap(), [expected], "{which}");
    }
    project.write("p.toml", &train("another-name", "runs/${which}"));
    assert_eq!(project.run(&["which=gan"]).unwrap(), ["skipped"]);
    assert_eq!(project.text("log"), "vae\ngan\n");
    // With one output for both, the last one counts.
    let project = Project::new(&train("train", "runs/model"));
    for (which, expected) in [("vae", "done"), ("gan", "done"), ("gan", "skipped"), ("vae", "done")] {
        assert_eq!(project.run(&[&format!("which={which}")]).unwrap(), [expected], "{which}");
    }
    assert_eq!(project.text("runs/model"), "vae\n");
}

/// Every file below a folder, the state of the pipeline aside.
fn contents(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with(".pipeline") {
        } else if path.is_dir() {
            found.extend(contents(&path));
        } else {
            found.insert(path.clone(), read_to_string(&path).unwrap());
        }
    }
    found
}

#[test]
fn nothing_is_replaced_that_no_pipeline_made() {
    let command = "mkdir -p ${run} && touch ${run}/model";
    let text = "vars = { run = \"runs/model\" }\n".to_owned()
        + &steps(&[("train", command, "outputs = [\"${run}\"]\nfresh = true")]);
    let project = Project::new(&text);
    project.run(&[]).unwrap();
    project.write("runs/model/old", "");
    let force = Options { force: true, ..Options::default() };
    project.run_with(&force).unwrap();
    assert!(project.at("runs/model/model").exists() && !project.at("runs/model/old").exists());
    project.write("runs/mine/thesis.tex", "years");
    project.write("thesis.tex", "years");
    let before = contents(project.folder.path());
    let outside = "does not lie below the pipeline's output folder";
    for (output, part) in [
        ("runs/mine", "was not made by a pipeline"),
        ("runs/model/../mine/.", "was not made by a pipeline"),
        (".", outside),
        ("..", outside),
        ("runs", outside),
        ("/", outside),
        ("thesis.tex", outside),
        ("runs/../../x", outside),
        ("runs/.pipeline", "the pipeline's own state"),
    ] {
        let error = project.error(&[&format!("run={output}")]);
        assert!(error.contains("step `train`") && error.contains(part), "{output}: {error}");
        assert_eq!(contents(project.folder.path()), before, "{output}");
    }
    for out in [".", "..", "/"] {
        assert!(project.error(&[&format!("out={out}")]).contains("holds the pipeline file"), "{out}");
    }
    // A file of the user at the place of an output that is not a folder.
    project
        .write("p.toml", &steps(&[("write", "echo > runs/mine/thesis.tex", "outputs = [\"runs/mine/thesis.tex\"]")]));
    assert!(project.error(&[]).contains("was not made by a pipeline"));
    assert_eq!(project.text("runs/mine/thesis.tex"), "years");
}

#[test]
fn files_that_are_wrong_are_refused_before_anything_runs() {
    let write = "outputs = [\"runs/a\"]";
    for (text, part) in [
        ("about = 3".to_owned(), "invalid type"),
        (steps(&[("a", "true", "")]).replace("about = \"a test\"", ""), "no `about`"),
        (steps(&[("a", "true", "need = [\"b\"]")]), "unknown field `need`"),
        (steps(&[("a", "true", ""), ("a", "true", "")]), "two steps are named `a`"),
        (steps(&[("a.b", "true", "")]), "expected a name without"),
        (steps(&[("a", "true", "mm = [\"doctor\"]")]), "exactly one of fetch, pull, mm, run"),
        (
            steps(&[("train", "true", ""), ("b", "true", "depends = [\"trian\"]")]),
            "depends on `trian`, which is no step; did you mean `train`?",
        ),
        (
            steps(&[
                ("a", "true", "depends = [\"c\"]"),
                ("b", "true", "depends = [\"a\"]"),
                ("c", "true", "depends = [\"b\"]"),
            ]),
            "steps wait for each other: `a` → `c` → `b` → `a`",
        ),
        (steps(&[("a", "true", "depends = [\"b\"]"), ("b", "true", "")]), "`b` has no `depends`, so it waits for all"),
        (steps(&[("a", "true", "depends = [\"a\"]")]), "steps wait for each other: `a` → `a`"),
        (steps(&[("a", "true", "outputs = [\"/etc/passwd\"]")]), "does not lie below the pipeline's output folder"),
        (steps(&[("a", "true", write), ("b", "true", write)]), "steps `a` and `b` both write"),
        (steps(&[("a", "true", &format!("{write}\nmatrix = {{ n = [1, 2] }}"))]), "put its variables into the path"),
        (steps(&[("a", "true", "matrix = { n = 3 }")]), "matrix.n: expected a list"),
        (steps(&[("a", "true", "matrix = { here = [1] }")]), "matrix.here: the variable is built in"),
        (steps(&[("a", "echo ${wird}", "")]), "no variable `wird`"),
        (steps(&[("a", "true", "env = { \"A=B\" = 1 }")]), "env.A=B"),
        ("include = [\"p.toml\"]\n".to_owned() + &steps(&[("a", "true", "")]), "it includes itself"),
        ("include = [\"none.toml\"]\n".to_owned() + &steps(&[("a", "true", "")]), "none.toml cannot be read"),
        ("vars = { out = \"x\" }\n".to_owned() + &steps(&[("a", "true", "")]), "vars.out: the variable is built in"),
        ("about = \"x\"\n[[step]]\nname = \"a\"\nfetch = \"emojis\"\n".to_owned(), "did you mean `emoji`"),
        (steps(&[("a", "touch ran", "inputs = [\"none.csv\"]")]), "its input"),
        (steps(&[("a", "touch ran", "cwd = \"none\"")]).replace("touch ran", "true"), "no such folder"),
    ] {
        let project = Project::new(&text);
        let error = project.error(&[]);
        assert!(error.contains(part) && !project.at("ran").exists(), "{text}: {error}");
    }
    let project = Project::new(&steps(&[("a", "true", "")]));
    for (set, part) in
        [("b=1", "has no variable `b`"), ("b.run=1", "has no step `b`; its steps are a"), ("x", "expected KEY=VALUE")]
    {
        assert!(project.error(&[set]).contains(part), "{set}");
    }
}

#[test]
fn a_matrix_runs_a_step_for_each_combination_with_env_and_cwd() {
    let make = (
        "make",
        "echo $WORD ${n} > ${out}/${kind}-${n}",
        "matrix = { kind = [\"a\", \"b\"], n = [1, 2] }\ncwd = \"sub\"\nenv = { WORD = \"${kind}!\" }\noutputs = [\"${out}/${kind}-${n}\"]",
    );
    let join = ("join", "cat runs/?-? > runs/all", "inputs = [\"runs/a-1\", \"runs/b-2\"]\noutputs = [\"runs/all\"]");
    let project = Project::new(&steps(&[make, join]));
    std::fs::create_dir(project.at("sub")).unwrap();
    let reports = project.run_with(&Options { jobs: 3, ..Options::default() }).unwrap();
    let names: Vec<&str> = reports.iter().map(|r| r.step.as_str()).collect();
    assert!(names.contains(&"make[kind=b,n=1]") && names.len() == 5 && names[4] == "join", "{names:?}");
    assert_eq!(project.text("runs/all"), "a! 1\na! 2\nb! 1\nb! 2\n");
    // One more value repeats nothing.
    let states = project.run(&["make.matrix.n=[1, 2, 3]"]).unwrap();
    assert_eq!(states.iter().filter(|s| **s == "done").count(), 2, "{states:?}");
    assert_eq!(project.run(&["make.env.WORD=new"]).unwrap()[..4], ["done"; 4]);
}

#[test]
fn independent_steps_run_side_by_side_and_others_wait() {
    // Each of the two waits for the file of the other one, so only together do they end.
    let pair = |own: &str, other: &str| {
        format!("touch runs/{own}; for i in $(seq 200); do test -f runs/{other} && exit 0; sleep 0.05; done; exit 1")
    };
    let (a, b) = (pair("a", "b"), pair("b", "a"));
    let text = steps(&[
        ("a", &a, "depends = []\noutputs = [\"runs/a\"]"),
        ("b", &b, "depends = []\noutputs = [\"runs/b\"]"),
        (
            "c",
            "cat runs/a runs/b && touch runs/c",
            "depends = []\ninputs = [\"runs/a\", \"runs/b\"]\noutputs = [\"runs/c\"]",
        ),
    ]);
    let project = Project::new(&text);
    let reports = project.run_with(&Options { jobs: 2, ..Options::default() }).unwrap();
    assert_eq!(reports.iter().map(|r| r.state).collect::<Vec<_>>(), ["done"; 3]);
    assert_eq!(reports[2].step, "c");
    // A failure keeps further steps from beginning.
    let text = steps(&[("a", "exit 3", ""), ("b", "touch runs/never", "")]);
    let project = Project::new(&text);
    let error = describe(&project.run_with(&Options { jobs: 4, ..Options::default() }).unwrap_err());
    assert!(error.contains("step `a` failed") && !project.at("runs/never").exists(), "{error}");
}

#[test]
fn included_files_bring_steps_and_variables_and_their_own_paths() {
    let project = Project::new(
        "about = \"main\"\ninclude = [\"shared/prepare.toml\"]\n[vars]\nsize = 2\n[[step]]\nname = \"use\"\nrun = [\"cp\", \"${out}/prepared\", \"${out}/used\"]\ninputs = [\"${out}/prepared\"]\noutputs = [\"${out}/used\"]\n",
    );
    let prepare = "[vars]\nsize = 1\nfrom = \"${here}/data.txt\"\n[[step]]\nname = \"prepare\"\nrun = [\"sh\", \"-c\", \"cat ${from} data.txt > ${out}/prepared; echo ${size} >> ${out}/prepared\"]\ninputs = [\"data.txt\"]\noutputs = [\"${out}/prepared\"]\n";
    project.write("shared/prepare.toml", prepare);
    project.write("shared/data.txt", "x\n");
    assert_eq!(project.run(&[]).unwrap(), ["done", "done"]);
    assert_eq!(project.text("runs/used"), "x\nx\n2\n");
    assert_eq!(project.run(&["size=3"]).unwrap(), ["done", "done"]);
    project.write("shared/prepare.toml", &format!("out = \"x\"\n{prepare}"));
    assert!(project.error(&[]).contains("prepare.toml: `out` belongs into the pipeline that includes this file"));
}

#[test]
fn own_sources_are_fetched_when_a_step_uses_them() {
    let archive = tar_gz(&[("birds/a.txt", b"a bird\n")]);
    let server = Server::start(&[("birds.tar.gz", &archive)]);
    let source = |sha256: &str| {
        format!(
            "[[data]]\nname = \"birds\"\nfrom = {{ url = [{{ url = \"{}/birds.tar.gz\", sha256 = \"{sha256}\" }}] }}\n",
            server.url
        )
    };
    let text = "registry = \"sources.toml\"\n".to_owned()
        + &steps(&[("use", "cp ${data.birds}/birds/a.txt runs/a.txt", "outputs = [\"runs/a.txt\"]")]);
    let project = Project::new(&text);
    project.write("sources.toml", &source(&"0".repeat(64)));
    let error = project.error(&[]);
    assert!(error.contains("step `use` failed") && error.contains("its sha256 is"), "{error}");
    assert!(!project.at("runs/a.txt").exists());
    project.write("sources.toml", &source(&hex(&Sha256::digest(&archive))));
    assert_eq!(project.run(&[]).unwrap(), ["done"]);
    assert_eq!(project.text("runs/a.txt"), "a bird\n");
    assert_eq!(project.run(&[]).unwrap(), ["skipped"]);
    project.write("sources.toml", "[[data]]\nname = \"emoji\"\nfrom = { pip = [\"x\"] }\n");
    let error = project.error(&[]);
    assert!(error.contains("sources.toml: [[data]]: the name `emoji` is taken"), "{error}");
}

#[test]
fn a_dry_run_says_why_and_changes_nothing() {
    let text = steps(&[
        ("first", "cp data.txt runs/a", "inputs = [\"data.txt\"]\noutputs = [\"runs/a\"]"),
        ("second", "cp runs/a runs/b", "inputs = [\"runs/a\"]\noutputs = [\"runs/b\"]"),
    ]);
    let project = Project::new(&text);
    project.write("data.txt", "1");
    let dry = || project.run_with(&Options { dry_run: true, ..Options::default() }).unwrap();
    let first = dry();
    assert_eq!((first[0].state, first[0].reason.as_str()), ("would_run", "it has not been completed yet"));
    assert!(!project.at("runs").exists());
    project.run(&[]).unwrap();
    assert!(dry().iter().all(|r| r.state == "would_skip" && r.reason.starts_with("nothing changed since it ran")));
    project.write("data.txt", "2");
    let changed = dry();
    assert!(
        changed[0].reason.starts_with("its input") && changed[0].reason.ends_with("data.txt changed"),
        "{changed:?}"
    );
    assert!(changed[1].reason.contains("step `first` writes its input"), "{changed:?}");
    project.write("p.toml", &text.replace("cp runs/a runs/b", "cat runs/a > runs/b"));
    assert!(dry()[1].reason.contains("writes its input") || dry()[1].reason.contains("its command changed"));
}

#[test]
fn mm_is_looked_for_only_when_a_step_needs_it_and_counts_by_its_version() {
    let project = Project::new("about = \"x\"\n[[step]]\nname = \"a\"\nmm = [\"doctor\"]\n");
    assert_eq!(project.run(&[]).unwrap(), ["done"]);
    let read = |file: &Path| read_to_string(file).at(file, "read");
    let pipeline = parse(&project.at("p.toml"), &[], Registry::at(project.at("cache")).unwrap(), &read).unwrap();
    // A program at another path is the same version: nothing runs.
    let mm = || Err(Error::Other("not built".into()));
    let (stop, keeps_stdout) = (AtomicBool::new(false), true);
    let runner = Runner { mm: &mm, stop: &stop, keeps_stdout };
    assert_eq!(runner.run(&pipeline, &Options::default()).unwrap()[0].state, "skipped");
    let force = Options { force: true, ..Options::default() };
    assert!(describe(&runner.run(&pipeline, &force).unwrap_err()).contains("not built"));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(runner.run(&pipeline, &Options::default()), Err(Error::Interrupted { .. })));
}

#[test]
fn a_second_process_waits_and_finds_the_work_done() {
    let text = steps(&[("slow", "echo x >> log; sleep 0.3; cp log runs/log", "outputs = [\"runs/log\"]")]);
    let project = Project::new(&text);
    std::thread::scope(|scope| {
        let other = scope.spawn(|| project.run(&[]).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        let states = [project.run(&[]).unwrap(), other.join().unwrap()].concat();
        assert!(states.contains(&"done") && states.contains(&"skipped"), "{states:?}");
    });
    assert_eq!(project.text("log"), "x\n");
}
