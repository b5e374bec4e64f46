//! What pipelines leave alone: links, files of the user, what came to be while no step ran.

use super::{super::*, Project, contents, steps};
use crate::error::describe;
use std::time::Duration;

/// A pipeline whose one step makes a folder afresh.
fn training() -> String {
    let command = "mkdir -p ${run} && touch ${run}/model";
    let step = steps(&[("train", command, "outputs = [\"${run}\"]\nfresh = true")]);
    "vars = { run = \"runs/model\" }\n".to_owned() + &step
}

const FORCE: fn() -> Options = || Options { force: true, ..Options::default() };

/// Longer than the times of files lag behind the clock.
fn wait() {
    std::thread::sleep(Duration::from_millis(60));
}

#[test]
fn files_in_an_output_that_no_step_made_are_moved_and_not_deleted() {
    let project = Project::new(&training());
    project.run(&[]).unwrap();
    wait();
    project.write("runs/model/notes/é.txt", "years");
    wait();
    for _ in 0..2 {
        project.run_with(&FORCE()).unwrap();
    }
    assert!(project.at("runs/model/model").exists() && !project.at("runs/model/notes").exists());
    assert_eq!(project.text("runs/.pipeline/kept/model/notes/é.txt"), "years");
    assert!(!project.at("runs/.pipeline/kept/model/model").exists());
    // A second time, at a place of its own.
    wait();
    project.write("runs/model/notes/é.txt", "decades");
    wait();
    project.run_with(&FORCE()).unwrap();
    assert_eq!(project.text("runs/.pipeline/kept/model/notes/é.txt"), "years");
    assert_eq!(project.text("runs/.pipeline/kept/model-2/notes/é.txt"), "decades");
}

#[test]
fn what_took_the_place_of_an_output_is_not_replaced() {
    let project = Project::new(&training());
    project.run(&[]).unwrap();
    wait();
    std::fs::remove_dir_all(project.at("runs/model")).unwrap();
    project.write("runs/model/thesis.tex", "years");
    wait();
    let before = contents(project.folder.path());
    let error = describe(&project.run_with(&FORCE()).unwrap_err());
    assert!(error.contains("exists and was not made by a pipeline"), "{error}");
    assert_eq!(contents(project.folder.path()), before);
    // A dry run says so too.
    let dry = project.run_with(&Options { dry_run: true, ..FORCE() }).unwrap();
    assert_eq!(dry[0].state, "would_fail");
    assert!(dry[0].reason.contains("not made by a pipeline"), "{dry:?}");
    // What the next run makes again is its own.
    std::fs::remove_dir_all(project.at("runs/model")).unwrap();
    for _ in 0..2 {
        project.run_with(&FORCE()).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn links_lead_no_output_out_of_the_folder() {
    use std::os::unix::fs::symlink;
    let project = Project::new(&training());
    project.write("mine/thesis.tex", "years");
    std::fs::create_dir(project.at("runs")).unwrap();
    symlink(project.at("mine"), project.at("runs/link")).unwrap();
    let before = contents(project.folder.path());
    for run in ["runs/link/model", "runs/link/a/b"] {
        let error = project.error(&[&format!("run={run}")]);
        assert!(error.contains("step `train`") && error.contains("where a link leads"), "{error}");
        assert_eq!(contents(project.folder.path()), before);
    }
    let error = project.error(&["run=runs/link"]);
    assert!(error.contains("exists and was not made by a pipeline"), "{error}");
    // An output folder that a link makes the folder of the pipeline.
    symlink(project.folder.path(), project.at("here")).unwrap();
    let error = project.error(&["out=here", "run=here/new"]);
    assert!(error.contains("holds the pipeline file"), "{error}");
    // A link that a step made, to a folder that it did not make: only the link is deleted.
    let command = "ln -s $PWD/mine ${run}";
    project.write("p.toml", &training().replace("mkdir -p ${run} && touch ${run}/model", command));
    for _ in 0..2 {
        project.run_with(&FORCE()).unwrap();
    }
    assert_eq!(project.text("mine/thesis.tex"), "years");
    // One that took the place of a step's folder later is not followed by what lies below it.
    std::fs::remove_file(project.at("runs/model")).unwrap();
    let below = "vars = { run = \"runs/model/thesis.tex\" }\n".to_owned() + training().split_once('\n').unwrap().1;
    symlink(project.at("mine"), project.at("runs/model")).unwrap();
    project.write("p.toml", &below);
    assert!(project.error(&[]).contains("where a link leads"));
    assert_eq!(project.text("mine/thesis.tex"), "years");
    // Elsewhere as a whole is where the user wants it.
    std::fs::create_dir(project.at("large disk")).unwrap();
    symlink(project.at("large disk"), project.at("runs2")).unwrap();
    project.write("p.toml", &training().replace("runs/model", "${out}/model"));
    assert_eq!(project.run(&["out=runs2"]).unwrap(), ["done"]);
    assert!(project.at("large disk/model/model").exists());
}
