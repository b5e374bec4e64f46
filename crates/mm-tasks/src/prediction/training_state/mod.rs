//! State of the training besides the parameters, which a resumed run must find again: weights of gradient blending and
//! generated unimodal labels.

mod gradient_blending;
mod unimodal_labels;

pub(super) use gradient_blending::GradientBlending;
pub(super) use unimodal_labels::UnimodalLabels;

use mm_core::{Result, Tensor};

/// The name of the head on all modalities.
pub(super) const FUSED: &str = "fused";

/// Prefix of the state of [`UnimodalLabels`] in a checkpoint.
const UNIMODAL_LABELS: &str = "unimodal_labels.";

/// The state of the methods that the config switches on.
#[derive(Default)]
pub(super) struct TrainingState {
    pub(super) gradient_blending: Option<GradientBlending>,
    pub(super) unimodal_labels: Option<UnimodalLabels>,
}

impl TrainingState {
    /// Tensors by name, for a checkpoint.
    pub(super) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut out = Vec::new();
        if let Some(blending) = &self.gradient_blending {
            out.push(("gradient_blending".to_owned(), Tensor::from_slice(&blending.to_values())?));
        }
        if let Some(labels) = &self.unimodal_labels {
            let state = labels.state()?.into_iter();
            out.extend(state.map(|(name, tensor)| (format!("{UNIMODAL_LABELS}{name}"), tensor)));
        }
        Ok(out)
    }

    /// Takes back [`TrainingState::state`].
    pub(super) fn load_state(&mut self, find: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        if let (Some(blending), Some(found)) = (&mut self.gradient_blending, find("gradient_blending")) {
            blending.load_values(&found.to_vec::<f64>()?);
        }
        if let Some(labels) = &mut self.unimodal_labels {
            labels.load_state(&|name| find(&format!("{UNIMODAL_LABELS}{name}")))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::target::{Label, Problem, Target},
        *,
    };
    use mm_core::Modality;
    use std::collections::BTreeMap;

    #[test]
    fn a_resumed_run_finds_its_state_again() {
        let modalities = [Modality::TEXT, Modality::AUDIO];
        let target = Target { problem: Problem::Binary, classes: vec!["no".into(), "yes".into()] };
        let labels: Vec<Option<Label>> = (0..6).map(|n| Some(Label::Class(n % 2))).chain([None]).collect();
        let fresh = || TrainingState {
            gradient_blending: Some(GradientBlending::new(&modalities)),
            unimodal_labels: UnimodalLabels::new(&labels, &modalities, &target),
        };
        let mut first = fresh();
        let blending = first.gradient_blending.as_mut().unwrap();
        for (train, valid) in [([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]), ([0.4, 0.2, 0.9], [0.5, 0.95, 0.95])] {
            for (head, loss) in [FUSED, "audio", "text"].iter().zip(train) {
                blending.record_training_loss(head, loss);
            }
            let heads = [FUSED, "audio", "text"].map(ToOwned::to_owned).into_iter().zip(valid).collect();
            blending.update(&heads).unwrap();
        }
        // The head that overfits has the smallest weight.
        assert!(
            blending.weight("audio") < blending.weight(FUSED) && blending.weight("audio") < blending.weight("text")
        );
        blending.record_training_loss(FUSED, 0.3);
        let own = first.unimodal_labels.as_mut().unwrap();
        let features =
            Tensor::from_vec(&[1f32, 0.0, -1.0, 0.2, 0.9, 0.1, -0.8, 0.0, 0.5, 0.5, 0.7, 0.1], &[6, 2]).unwrap();
        let rows: Vec<usize> = (0..6).collect();
        let present = Tensor::from_slice(&[1f32, 1.0, 1.0, 1.0, 1.0, 0.0]).unwrap();
        own.record(FUSED, &rows, &features, None).unwrap();
        // The texts of the first two rows look like each other's.
        let swapped = features.index_select(0, &Tensor::from_slice(&[1i64, 0, 2, 3, 4, 5]).unwrap()).unwrap();
        own.record("text", &rows, &swapped, Some(&present)).unwrap();
        own.update().unwrap();
        assert!(own.mean_shift("text") > 0.0 && own.mean_shift("audio") == 0.0);
        // The row without text keeps its label.
        assert_eq!(own.label("text", 5), 1.0);
        let saved: BTreeMap<String, Tensor> = first.state().unwrap().into_iter().collect();
        let mut second = fresh();
        second.load_state(&|name| saved.get(name).cloned()).unwrap();
        let again = second.state().unwrap();
        assert_eq!(again.len(), saved.len());
        for (name, tensor) in again {
            assert_eq!(tensor.to_bytes().unwrap(), saved[&name].to_bytes().unwrap(), "{name}");
        }
        // A run that starts finds nothing.
        fresh().load_state(&|_| None).unwrap();
        assert!(UnimodalLabels::new(&[None, None], &modalities, &target).is_none());
    }
}
