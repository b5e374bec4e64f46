//! Whether a step runs, and why.

use super::{
    key::Key,
    state::{Incomplete, State},
    step::{Action, Step},
};
use crate::{
    hub::Hub,
    registry::{Kind, Registry, is_hub_name},
};

/// Whether a step runs.
pub(super) enum Decision {
    /// It does, for this reason.
    Run(String),
    /// It does not, for this reason.
    Skip(String),
}

/// Decides on a step with this key; `forced` is the option that asks for it.
pub(super) fn decide(step: &Step, key: &Key, state: &State, registry: &Registry, forced: Option<&str>) -> Decision {
    if let Some(option) = forced {
        return Decision::Run(option.to_owned());
    }
    if step.is_download() {
        let is_cached = match &step.action {
            Action::Pull(name) if is_hub_name(name) => Hub::from_environment().is_ok_and(|h| h.find(name).is_some()),
            Action::Pull(name) => registry.is_cached(Kind::Models, name),
            Action::Fetch(name) => registry.is_cached(Kind::Data, name),
            _ => false,
        };
        let text = |text: &str| text.to_owned();
        return if is_cached {
            Decision::Skip(text("it is in the cache"))
        } else {
            Decision::Run(text("it is not in the cache"))
        };
    }
    match state.completed(step, key) {
        Ok(record) => {
            Decision::Skip(format!("nothing changed since it ran {} for {:.1} s", record.age(), record.seconds))
        }
        Err(Incomplete::Missing(output)) => Decision::Run(format!("its output {} is missing", output.display())),
        Err(Incomplete::Overwritten(output)) => {
            Decision::Run(format!("its output {} was written by another step since", output.display()))
        }
        Err(Incomplete::NeverRun(None)) => Decision::Run("it has not been completed yet".into()),
        Err(Incomplete::NeverRun(Some(record))) if record.command != key.command => {
            Decision::Run(format!("its command changed: it was {}", record.command))
        }
        Err(Incomplete::NeverRun(Some(record))) => {
            let changed = key.inputs.iter().find(|(path, digest)| record.inputs.get(*path) != Some(digest));
            Decision::Run(match changed {
                Some((path, _)) => format!("its input {path} changed"),
                None => "its inputs or outputs are other ones than before".into(),
            })
        }
    }
}
