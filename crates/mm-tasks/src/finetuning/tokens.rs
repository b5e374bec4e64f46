//! Questions and target texts as token ids, computed before training.

use super::model::{Finetuning, question, targets};
use crate::Result;
use mm_core::{ProcessContext, Processor, Source, Tensor};
use mm_data::Manifest;
use std::collections::HashMap;

/// Texts whose token ids are known.
pub(super) struct PretokenizedTexts {
    /// The ids of each text, `[tokens]` or `[tokens, columns]`.
    ids: HashMap<String, Vec<i64>>,
    columns: usize,
    name: &'static str,
}

impl PretokenizedTexts {
    fn new(name: &'static str, columns: usize) -> Self {
        Self { ids: HashMap::new(), columns, name }
    }
}

impl Processor for PretokenizedTexts {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let ids = if let Source::Text(text) = source { self.ids.get(text) } else { None };
        let unknown =
            || mm_core::Error::Sample(format!("{}: found {source:?}, expected a text of the data set", self.name));
        let ids = ids.ok_or_else(unknown)?;
        if self.columns == 1 {
            return Tensor::from_slice(ids);
        }
        Tensor::from_vec(ids, &[(ids.len() / self.columns) as i64, self.columns as i64])
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("pretokenized {} {}", self.name, self.ids.len())
    }
}

/// The key of a question and a target in [`TokenizedPairs::targets`].
pub(super) fn pair_key(question: Option<&str>, target: &str) -> String {
    format!("{}\u{0}{target}", question.unwrap_or_default())
}

/// The tokens of all pairs of a data set.
pub(super) struct TokenizedPairs {
    /// The ids of each question.
    pub(super) questions: PretokenizedTexts,
    /// For each pair `[tokens, 2]`: the decoder's ids, and 1 where the token is part of the target; of a classifier the
    /// index of the label.
    pub(super) targets: PretokenizedTexts,
}

impl Finetuning {
    /// Tokenizes the questions and targets of all rows.
    pub(super) fn tokenize(&self, manifest: &Manifest) -> Result<TokenizedPairs> {
        let mut questions = PretokenizedTexts::new("question", 1);
        let mut pairs = PretokenizedTexts::new("target", 2);
        let pipeline = &self.loaded.pipeline;
        // The number of image tokens is part of the prompt of some models.
        let media = manifest.rows.iter().find_map(|r| {
            let source = r.values.get(&self.modality)?.first()?;
            pipeline.encode_media_for_training(&self.modality, std::slice::from_ref(source)).ok()
        });
        for row in 0..manifest.rows.len() {
            let question = question(manifest, row);
            for target in targets(manifest, row) {
                let key = pair_key(question, target);
                if pairs.ids.contains_key(&key) {
                    continue;
                }
                let prompt = pipeline.prompt(media.as_ref(), self.request(question))?;
                let decoder_ids = prompt.decoder_input_ids;
                if let Some(question) = question.filter(|q| !questions.ids.contains_key(*q)) {
                    let question_ids = prompt.question_ids;
                    let ids = if question_ids.is_empty() { decoder_ids.clone() } else { question_ids };
                    questions.ids.insert(question.to_owned(), ids);
                }
                pairs.ids.insert(key, self.target_ids(decoder_ids, target)?);
            }
        }
        Ok(TokenizedPairs { questions, targets: pairs })
    }

    /// The `[tokens, 2]` ids of a target after the decoder's prompt.
    fn target_ids(&self, prompt: Vec<i64>, target: &str) -> Result<Vec<i64>> {
        let pipeline = &self.loaded.pipeline;
        if !pipeline.can_generate() {
            // An answer that is not a label cannot be learned and counts as wrong.
            let label = pipeline.labels.iter().position(|l| l == target).map_or(-1, |n| n as i64);
            return Ok(vec![label, 1]);
        }
        let start = prompt.len();
        let mut ids = prompt;
        ids.extend(pipeline.tokenizer.encode(target, false)?.into_iter().take(self.config.max_length.count()));
        ids.extend(pipeline.generation.eos_token_id.first());
        Ok(ids.iter().enumerate().flat_map(|(n, id)| [*id, i64::from(n >= start)]).collect())
    }
}
