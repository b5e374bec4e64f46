//! Which steps wait for which.

use super::step::Step;
use std::{collections::BTreeSet, path::Path};

/// The steps that each step waits for: those that it names (without `depends`, all before it), those that write what it
/// reads, and earlier ones that write to the same folder.
pub(super) fn waits(steps: &[Step]) -> Result<Vec<Vec<usize>>, String> {
    let mut all = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        if let Some(other) = steps[..index].iter().find(|other| other.name == step.name) {
            return Err(format!("two steps are named `{}`", other.name));
        }
        let mut found: BTreeSet<usize> = match &step.depends {
            // The other settings of its own matrix do not matter to it.
            None => (0..index).filter(|other| steps[*other].base != step.base).collect(),
            Some(names) => named(steps, step, names)?,
        };
        found.extend((0..steps.len()).filter(|other| *other != index && must_wait(steps, index, *other)));
        all.push(found.into_iter().collect());
    }
    Ok(all)
}

/// The steps of these names; the name of a step with a matrix stands for all its settings.
fn named(steps: &[Step], step: &Step, names: &[String]) -> Result<BTreeSet<usize>, String> {
    let mut found = BTreeSet::new();
    for name in names {
        let matching: Vec<usize> =
            (0..steps.len()).filter(|n| steps[*n].name == *name || steps[*n].base == *name).collect();
        if matching.is_empty() {
            let likeness = |a: &Step| strsim::jaro_winkler(&a.name, name);
            let nearest = steps.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).map_or("", |s| &s.name);
            return Err(format!(
                "step `{}`: depends on `{name}`, which is no step; did you mean `{nearest}`?",
                step.name
            ));
        }
        found.extend(matching);
    }
    Ok(found)
}

/// Whether the files of two steps make one wait for the other.
fn must_wait(steps: &[Step], index: usize, other: usize) -> bool {
    let (step, writer, earlier) = (&steps[index], &steps[other], other < index);
    let cached = |step: &Step, is_wanted: bool| if is_wanted { step.folders.clone() } else { Vec::new() };
    let read = [step.inputs.clone(), cached(step, !step.is_download())].concat();
    let written = [writer.outputs.clone(), cached(writer, writer.is_download())].concat();
    let overlap = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
    written.iter().any(|w| {
        read.iter().any(|r| r.starts_with(w) || (earlier && overlap(r, w)))
            || (earlier && step.outputs.iter().any(|o| overlap(o, w)))
    })
}

/// An order in which the steps can run, that of the file where possible.
pub(super) fn order(steps: &[Step], waits: &[Vec<usize>]) -> Result<Vec<usize>, String> {
    let mut order = Vec::new();
    let mut left: BTreeSet<usize> = (0..steps.len()).collect();
    while let Some(next) = left.iter().copied().find(|n| waits[*n].iter().all(|w| !left.contains(w))) {
        left.remove(&next);
        order.push(next);
    }
    let Some(first) = left.first().copied() else { return Ok(order) };
    // Each step that is left waits for another one that is left, so this walk meets a step again.
    let mut path = vec![first];
    loop {
        let current = path[path.len() - 1];
        let next = waits[current].iter().copied().find(|w| left.contains(w)).unwrap_or(current);
        if let Some(start) = path.iter().position(|n| *n == next) {
            path.push(next);
            return Err(cycle(steps, &path[start..]));
        }
        path.push(next);
    }
}

fn cycle(steps: &[Step], path: &[usize]) -> String {
    let names: Vec<String> = path.iter().map(|n| format!("`{}`", steps[*n].name)).collect();
    let implicit = path.iter().find(|n| steps[**n].depends.is_none()).map(|n| &steps[*n].name);
    let hint = implicit.map_or_else(String::new, |name| {
        format!("; `{name}` has no `depends`, so it waits for all steps before it: write `depends = []` to change that")
    });
    format!("steps wait for each other: {}{hint}", names.join(" → "))
}

/// A step and all that wait for it, directly or not.
pub(super) fn with_dependents(first: &[usize], waits: &[Vec<usize>], order: &[usize]) -> BTreeSet<usize> {
    let mut found: BTreeSet<usize> = first.iter().copied().collect();
    for index in order {
        if waits[*index].iter().any(|w| found.contains(w)) {
            found.insert(*index);
        }
    }
    found
}
