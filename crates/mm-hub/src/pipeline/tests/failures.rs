//! Steps that fail while others run, and pipelines that are stopped.

use super::{super::*, Project, steps};
use crate::error::{At, describe};
use std::{
    fs::read_to_string,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

#[test]
fn steps_that_run_beside_a_failed_one_are_completed_and_counted() {
    let wait_for = |file: &str| format!("for i in $(seq 200); do test -f {file} && break; sleep 0.05; done");
    let slow = format!("touch runs/begun; {}; sleep 0.3; touch runs/slow", wait_for("runs/failed"));
    let fail = format!("{}; touch runs/failed; exit 3", wait_for("runs/begun"));
    let project = Project::new(&steps(&[
        ("fail", &fail, "depends = []"),
        ("slow", &slow, "depends = []\noutputs = [\"runs/slow\"]"),
        ("later", "touch runs/later", "depends = [\"slow\"]"),
    ]));
    std::fs::create_dir(project.at("runs")).unwrap();
    let options = Options { jobs: 2, ..Options::default() };
    let error = describe(&project.run_with(&options).unwrap_err());
    assert!(error.contains("step `fail` failed; 1 other step is complete"), "{error}");
    assert!(project.at("runs/slow").exists() && !project.at("runs/later").exists());
    // The next run does not repeat what was completed.
    project.write("p.toml", &read_to_string(project.at("p.toml")).unwrap().replace("exit 3", "exit 0"));
    let reports = project.run_with(&options).unwrap();
    let state = |name: &str| reports.iter().find(|r| r.step == name).unwrap().state;
    assert_eq!((state("fail"), state("slow"), state("later")), ("done", "skipped", "done"));
}

#[test]
fn a_step_that_ends_with_an_error_after_ctrl_c_was_interrupted() {
    // Many programs end with an ordinary error then.
    let project = Project::new(&steps(&[("a", "touch runs/begun; sleep 0.5; exit 1", ""), ("b", "touch runs/b", "")]));
    std::fs::create_dir(project.at("runs")).unwrap();
    let read = |file: &Path| read_to_string(file).at(file, "read");
    let pipeline = parse(&project.at("p.toml"), &[], Registry::at(project.at("cache")).unwrap(), &read).unwrap();
    let (stop, mm) = (AtomicBool::new(false), || Ok(PathBuf::from("/bin/echo")));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !project.at("runs/begun").exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let result = Runner { mm: &mm, stop: &stop, keeps_stdout: true }.run(&pipeline, &Options::default());
        assert!(matches!(result, Err(Error::Interrupted { step }) if step == "a"));
    });
    assert!(!project.at("runs/b").exists());
}

#[test]
fn a_dry_run_says_which_step_cannot_run() {
    let project = Project::new(&steps(&[
        ("a", "cp none runs/a", "inputs = [\"none\"]\noutputs = [\"runs/a\"]"),
        ("b", "cp runs/a runs/b", "inputs = [\"runs/a\"]\noutputs = [\"runs/b\"]"),
    ]));
    let dry = project.run_with(&Options { dry_run: true, ..Options::default() }).unwrap();
    assert_eq!(dry.iter().map(|r| r.state).collect::<Vec<_>>(), ["would_fail", "would_run"]);
    assert!(dry[0].reason.contains("none does not exist"), "{dry:?}");
}
