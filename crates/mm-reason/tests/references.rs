//! mm-reason against transformers: tiny checkpoints with random weights and unusual sizes, and the token ids, texts,
//! scores and logits that transformers computes with them (`xtask/parity/reason.py`).

use mm_core::{Input, Modality, ProcessContext, Processor, Source, Tensor};
use mm_reason::{
    EncodedMedia, Pipeline, Request, TrainBatch, TrainingOptions,
    generate::{EarlyStopping, GenerationConfig, LogitsProcessors},
    pretrained::Transcript,
};
use mm_repr::LoadOptions;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The folders that `xtask/parity/reason.py` wrote: the committed ones, or those of `MM_PARITY_REASON`.
fn fixtures() -> PathBuf {
    let committed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::env::var_os("MM_PARITY_REASON").map_or(committed, PathBuf::from)
}

fn generation_config(base: &GenerationConfig, options: &Value) -> GenerationConfig {
    let count = |key: &str, default: usize| options[key].as_u64().map_or(default, |n| n as usize);
    let float = |key: &str, default: f64| options[key].as_f64().unwrap_or(default);
    GenerationConfig {
        max_new_tokens: count("max_new_tokens", 9),
        max_length: None,
        min_length: 0,
        min_new_tokens: count("min_new_tokens", base.min_new_tokens),
        num_beams: count("num_beams", base.num_beams),
        length_penalty: float("length_penalty", base.length_penalty),
        repetition_penalty: float("repetition_penalty", base.repetition_penalty),
        no_repeat_ngram_size: count("no_repeat_ngram_size", base.no_repeat_ngram_size),
        early_stopping: match &options["early_stopping"] {
            Value::Bool(true) => EarlyStopping::FirstN,
            Value::String(_) => EarlyStopping::Never,
            _ => base.early_stopping,
        },
        ..base.clone()
    }
}

fn token_ids(value: &Value) -> Vec<i64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A row whose generations are compared in a batch with others.
struct BatchRow<'a> {
    media: EncodedMedia,
    text: String,
    kind: &'a str,
    expected: &'a Value,
}

impl BatchRow<'_> {
    fn request(&self) -> Request<'_> {
        if self.kind == "caption" { Request::Caption(Some(&self.text)) } else { Request::Question(&self.text) }
    }
}

/// A checkpoint's answers compared with its reference's.
struct Comparison {
    name: String,
    model: Pipeline,
    inputs: PathBuf,
    compared: usize,
    failures: Vec<String>,
}

impl Comparison {
    fn fail(&mut self, text: String) {
        self.failures.push(format!("{}: {text}", self.name));
    }

    fn encode(&self, row: &Value) -> mm_reason::Result<EncodedMedia> {
        let kinds = [("image", Modality::IMAGE), ("audio", Modality::AUDIO), ("video", Modality::VIDEO)];
        let source = |row: &Value| {
            let (file, modality) = kinds.iter().find_map(|(key, m)| Some((row[*key].as_str()?, m.clone()))).unwrap();
            (modality, Source::Path(self.inputs.join(file)))
        };
        if let Some(media) = row["media"].as_array() {
            let media: Vec<(Modality, Source)> = media.iter().map(source).collect();
            return Ok(self.model.encode_conversation(&media)?.unwrap());
        }
        let (modality, source) = source(row);
        self.model.encode_media(&modality, &[source])
    }

    /// Compares everything that the reference has for a row; returns it for comparisons in batches.
    fn compare_row<'a>(&mut self, kind: &'a str, row: &'a Value) -> Vec<BatchRow<'a>> {
        let media = match self.encode(row) {
            Ok(media) => media,
            Err(error) => {
                self.fail(format!("{kind}: {error}"));
                return Vec::new();
            }
        };
        let text = |key: &str| row[key].as_str();
        let request = match kind {
            "caption" => Request::Caption(text("prompt")),
            "transcribe" => Request::Transcribe { language: text("language"), timestamps: row["timestamps"] == true },
            "chat" => Request::Chat(&row["messages"]),
            _ => Request::Question(text("question").or(text("text")).unwrap_or_default()),
        };
        let mut batched = Vec::new();
        for expected in row["generations"].as_array().into_iter().flatten() {
            if let Request::Question(text) | Request::Caption(Some(text)) = request {
                batched.push(BatchRow { media: self.encode(row).unwrap(), text: text.to_owned(), kind, expected });
            }
            let what = format!("{kind} {} {} {}", row["image"], row["question"], expected["config"]);
            self.compare_generation(&what, &media, request, expected);
        }
        if let Some(expected) = row["segments"].as_array() {
            self.compare_segments(row, expected);
            return batched;
        }
        if row["attribution"].is_object() {
            self.compare_attribution(row, &media, request);
        }
        if let Some(expected) = row["score"].as_f64() {
            self.compared += 1;
            match self.model.itm_score(&media, text("text").unwrap()) {
                Ok(found) if (found - expected).abs() < 1e-4 => {}
                other => self.fail(format!("{kind}: found {other:?}, expected {expected}")),
            }
        }
        self.compare_answers(row, &media, request);
        batched
    }

    fn compare_generation(&mut self, what: &str, media: &EncodedMedia, request: Request<'_>, expected: &Value) {
        self.compared += 1;
        let config = generation_config(&self.model.generation, &expected["config"]);
        let found = self.model.generate(Some(media), request, &config, &LogitsProcessors::default(), &mut |_, _| {});
        let best = match found {
            Ok(found) => found[0][0].clone(),
            Err(error) => return self.fail(format!("{what}: {error}")),
        };
        let ids = token_ids(&expected["ids"]);
        if best.token_ids != ids {
            return self.fail(format!("{what}: found {:?}, expected {ids:?}", best.token_ids));
        }
        let text = self.model.tokenizer.decode(&best.token_ids).unwrap();
        if expected["text"].as_str() != Some(&text) {
            self.fail(format!("{what}: found {text:?}, expected {}", expected["text"]));
        }
        if best.finished != expected["finished"].as_bool().unwrap() {
            self.fail(format!("{what}: finished: {}", best.finished));
        }
        if let Some(score) = expected["score"].as_f64()
            && (best.score - score).abs() > 1e-4 * score.abs().max(1.0)
        {
            self.fail(format!("{what}: score {} instead of {score}", best.score));
        }
    }

    fn compare_segments(&mut self, row: &Value, expected: &[Value]) {
        self.compared += 1;
        let source = Source::Path(self.inputs.join(row["audio"].as_str().unwrap()));
        let config = GenerationConfig { max_new_tokens: 11, max_length: None, ..self.model.generation.clone() };
        let found = match self.model.transcribe(&source, row["language"].as_str(), true, &config) {
            Ok(found) => found,
            Err(error) => return self.fail(format!("transcribe: {error}")),
        };
        let show = |start: f64, end: f64, text: &str| format!("{start:.2}-{end:.2} {text}");
        let found: Vec<String> = found.segments.iter().map(|s| show(s.start, s.end, &s.text)).collect();
        let float = |value: &Value| value.as_f64().unwrap();
        let expected: Vec<String> =
            expected.iter().map(|s| show(float(&s["start"]), float(&s["end"]), s["text"].as_str().unwrap())).collect();
        if found != expected {
            self.fail(format!("transcribe {}: found {found:?}, expected {expected:?}", row["audio"]));
        }
    }

    fn compare_attribution(&mut self, row: &Value, media: &EncodedMedia, request: Request<'_>) {
        self.compared += 1;
        let expected = &row["attribution"];
        let found = self.model.explain(media, request, expected["answer"].as_str().unwrap()).unwrap();
        let patches: Vec<f32> = serde_json::from_value(expected["patches"].clone()).unwrap();
        let error = found.patches.iter().zip(&patches).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if found.patches.len() != patches.len() || found.grid.iter().product::<usize>() != patches.len() || error > 1e-4
        {
            self.fail(format!("{}: attribution {:?} instead of {patches:?}", row["question"], found.patches));
        }
        // Attention sums to one over all inputs.
        let sum = found.patches.iter().sum::<f32>() + found.words.iter().map(|w| w.1).sum::<f32>();
        if found.words.is_empty() || !(0.0..=1.001).contains(&sum) {
            self.fail(format!("{}: words {:?}", row["question"], found.words));
        }
    }

    /// Compares a classifier's logits and a generator's log-likelihoods of choices.
    fn compare_answers(&mut self, row: &Value, media: &EncodedMedia, request: Request<'_>) {
        if let Some(expected) = row["logits"].as_object() {
            self.compared += 1;
            let found = self.model.answer(Some(media), request, &[], &self.model.generation).unwrap();
            let scale = expected.values().filter_map(Value::as_f64).fold(0.0, |m: f64, v| m.max(v.abs()));
            for scored in found {
                let error = (scored.logit - expected[&scored.answer].as_f64().unwrap()).abs() / scale;
                if error > 1e-4 {
                    self.fail(format!("{}: relative error {error} of {}", row["image"], scored.answer));
                }
            }
        }
        if let Some(expected) = row["likelihoods"].as_object() {
            self.compared += 1;
            let choices: Vec<String> = expected.keys().cloned().collect();
            for scored in self.model.answer(Some(media), request, &choices, &self.model.generation).unwrap() {
                let error = scored.logit - expected[&scored.answer].as_f64().unwrap();
                if error.abs() > 1e-3 {
                    self.fail(format!("error {error} of the log-likelihood of {}", scored.answer));
                }
            }
        }
    }

    /// Compares rows with prompts of their own in one batch; returns whether the prompts differ in length.
    fn compare_batch(&mut self, rows: &[BatchRow<'_>]) -> bool {
        let config = generation_config(&self.model.generation, &rows[0].expected["config"]);
        let requests: Vec<(Option<&EncodedMedia>, Request<'_>)> =
            rows.iter().map(|row| (Some(&row.media), row.request())).collect();
        let length = |(media, request): &(Option<&EncodedMedia>, Request<'_>)| {
            let prompt = self.model.prompt(*media, *request).unwrap();
            prompt.question_ids.len() + prompt.decoder_input_ids.len()
        };
        let ragged = requests.windows(2).any(|pair| length(&pair[0]) != length(&pair[1]));
        let found = self.model.generate_batch(&requests, &config, &LogitsProcessors::default());
        for (row, found) in rows.iter().zip(found) {
            self.compared += 1;
            let expected = token_ids(&row.expected["ids"]);
            let found = &found.unwrap()[0].token_ids;
            if *found != expected {
                let what = format!("{} {} in a batch", row.text, row.expected["config"]);
                self.fail(format!("{what}: found {found:?}, expected {expected:?}"));
            }
        }
        ragged
    }
}

#[test]
fn every_family_generates_the_tokens_of_its_reference() {
    // These models are too small for a second thread to help.
    mm_core::set_num_threads(1);
    let fixtures = fixtures();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("answers.json").exists())
        .collect();
    folders.sort();
    assert!(folders.len() > 6 || std::env::var_os("MM_PARITY_REASON").is_some());
    let (mut failures, mut compared, mut ragged) = (Vec::new(), 0, 0);
    for folder in folders {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let answers: Value = serde_json::from_slice(&std::fs::read(folder.join("answers.json")).unwrap()).unwrap();
        let device = std::env::var("MM_TEST_DEVICE").map_or(mm_core::Device::Cpu, |d| d.parse().unwrap());
        let model = match Pipeline::load(&folder, LoadOptions { device, ..LoadOptions::default() }) {
            Ok(model) => model,
            Err(error) => {
                failures.push(format!("{name}: {error}"));
                continue;
            }
        };
        let inputs = fixtures.join("inputs");
        let mut comparison = Comparison { name, model, inputs, compared: 0, failures: Vec::new() };
        if !comparison.model.unexpected_keys.is_empty() && answers["unexpected_keys"].is_null() {
            comparison.fail(format!("unexpected keys: {:?}", comparison.model.unexpected_keys));
        }
        let mut batches: BTreeMap<String, Vec<BatchRow<'_>>> = BTreeMap::new();
        for (kind, rows) in answers.as_object().unwrap() {
            for row in rows.as_array().into_iter().flatten() {
                for row in comparison.compare_row(kind, row) {
                    batches.entry(row.expected["config"].to_string()).or_default().push(row);
                }
            }
        }
        for rows in batches.into_values().filter(|rows| rows.len() > 1) {
            ragged += usize::from(comparison.compare_batch(&rows));
        }
        compared += comparison.compared;
        failures.extend(comparison.failures);
    }
    assert!(ragged > 3 || std::env::var_os("MM_PARITY_REASON").is_some(), "{ragged} batches of different lengths");
    assert!(failures.is_empty(), "{} of {compared} failed:\n{}", failures.len(), failures.join("\n"));
    println!("{compared} answers compared");
}

/// Pads rows with zeros to `[rows, longest]`; returns the mask too.
fn pad(rows: &[Vec<i64>]) -> (Tensor, Tensor) {
    let longest = rows.iter().map(Vec::len).max().unwrap();
    let padded: Vec<i64> = rows.iter().flat_map(|row| (0..longest).map(|n| row.get(n).copied().unwrap_or(0))).collect();
    let mask: Vec<bool> = rows.iter().flat_map(|row| (0..longest).map(|n| n < row.len())).collect();
    let shape = [rows.len() as i64, longest as i64];
    (Tensor::from_vec(&padded, &shape).unwrap(), Tensor::from_vec(&mask, &shape).unwrap())
}

fn processed_batch(processor: &Arc<dyn Processor>, sources: &[Source]) -> Tensor {
    let samples: Vec<Tensor> =
        sources.iter().map(|s| processor.process(s, &mut ProcessContext::eval()).unwrap()).collect();
    mm_data::collate(&samples, processor.as_ref()).unwrap().values
}

/// Compares training logits of a padded batch with inference on each row; returns the number of comparisons.
fn compare_training_with_inference(folder: &Path, name: &str, images: &[Source], audio: &[Source]) -> usize {
    let model =
        Pipeline::load_for_training(folder, LoadOptions::default(), TrainingOptions::default()).unwrap().pipeline;
    let inference = Pipeline::load(folder, LoadOptions::default()).unwrap();
    let questions = ["a dog over the fox", "fox"];
    let answers = ["fox", "the quick brown dog"];
    let speech = name.starts_with("whisper");
    let (modality, sources) = if speech { (Modality::AUDIO, audio) } else { (Modality::IMAGE, images) };
    let answers_questions = !name.contains("caption") && !name.starts_with("vision");
    let request = |question: &'static str| match (speech, answers_questions) {
        (true, _) => Request::Transcribe { language: None, timestamps: false },
        (_, true) => Request::Question(question),
        _ => Request::Caption(None),
    };
    let values = processed_batch(model.train_processor(&modality).unwrap(), sources);
    let media: Vec<_> =
        sources.iter().map(|s| inference.encode_media(&modality, std::slice::from_ref(s)).unwrap()).collect();
    let prompts: Vec<_> = (0..2).map(|n| model.prompt(Some(&media[n]), request(questions[n])).unwrap()).collect();
    let (question_ids, mask) = pad(&prompts.iter().map(|p| p.question_ids.clone()).collect::<Vec<_>>());
    let question = Input { values: question_ids, mask: Some(mask) };
    let mut batch = TrainBatch {
        modality: &modality,
        values: &values,
        question: Some(&question),
        decoder_input_ids: None,
        train: false,
    };
    if !model.can_generate() {
        let logits = model.forward(&batch).unwrap();
        for (n, question) in questions.iter().enumerate() {
            let single = inference.answer_logits(&media[n], Request::Question(question)).unwrap();
            let difference = logits.select(0, n as i64).unwrap().sub(&single.select(0, 0).unwrap()).unwrap();
            let error = difference.abs().unwrap().max().unwrap().to_f64().unwrap();
            assert!(error < 1e-4, "{name}");
        }
        return questions.len();
    }
    let eos = model.generation.eos_token_id[0];
    let sequence = |n: usize| -> Vec<i64> {
        let ids = model.tokenizer.encode(answers[n], false).unwrap();
        prompts[n].decoder_input_ids.iter().copied().chain(ids).chain([eos]).collect()
    };
    let sequences = [sequence(0), sequence(1)];
    let (ids, _) = pad(&sequences);
    batch.decoder_input_ids = Some(&ids);
    let log_probs = model.forward(&batch).unwrap().log_softmax(-1).unwrap();
    for n in 0..2 {
        let row = log_probs.select(0, n as i64).unwrap();
        let token = |index: usize| {
            let before = row.select(0, index as i64 - 1).unwrap();
            before.select(0, sequences[n][index]).unwrap().to_f64().unwrap()
        };
        let total: f64 = (prompts[n].decoder_input_ids.len()..sequences[n].len()).map(token).sum();
        let choices = [answers[n].to_owned()];
        let single = inference.answer(Some(&media[n]), request(questions[n]), &choices, &inference.generation).unwrap();
        assert!((total - single[0].logit).abs() < 1e-3, "{name}: {total} instead of {}", single[0].logit);
    }
    answers.len()
}

/// In training, an answer has the log-probability that inference assigns to it, also in a batch with padding.
#[test]
fn recordings_in_a_batch_are_transcribed_as_alone() {
    mm_core::set_num_threads(1);
    let fixtures = fixtures();
    let names = ["short16.wav", "missing.wav", "tone48.wav", "long16.wav", "wide.png", "long5.wav", "short16.wav"];
    let sources = names.map(|name| Source::Path(fixtures.join("inputs").join(name)));
    for folder in ["whisper-multilingual", "whisper-english"] {
        let model = Pipeline::load(&fixtures.join(folder), LoadOptions::default()).unwrap();
        for (num_beams, timestamps) in [(1, false), (1, true), (2, true)] {
            let config =
                GenerationConfig { num_beams, max_new_tokens: 7, max_length: None, ..model.generation.clone() };
            let together = model.transcribe_batch(&sources, None, timestamps, &config, &|_| false);
            assert_eq!(together.len(), sources.len());
            let show = |found: mm_reason::Result<Transcript>| found.map_err(|error| error.to_string());
            for ((together, source), name) in together.into_iter().zip(&sources).zip(names) {
                let alone = show(model.transcribe(source, None, timestamps, &config));
                assert_eq!(alone.is_err(), ["missing.wav", "wide.png"].contains(&name), "{name}: {alone:?}");
                assert_eq!(show(together), alone, "{folder} {name} {num_beams} {timestamps}");
            }
        }
    }
}

#[test]
fn training_logits_match_inference() {
    mm_core::set_num_threads(1);
    let fixtures = fixtures();
    let input = |name: &str| Source::Path(fixtures.join("inputs").join(name));
    // ViLT and Qwen2-VL keep the shapes of images, so that their batches are padded.
    let images = [input("wide.png"), input("tall.jpg")];
    let audio = [input("short16.wav"), input("tone48.wav")];
    let names = [
        "blip-caption",
        "blip-vqa",
        "git-caption",
        "vision-encoder-decoder-vit-gpt2",
        "llava-clip-llama",
        "qwen2_vl-image",
        "vilt-vqa",
        "whisper-multilingual",
    ];
    // `xtask parity` may have written other families only.
    let existing: Vec<_> = names.iter().filter(|name| fixtures.join(name).exists()).collect();
    let compared: usize =
        existing.iter().map(|name| compare_training_with_inference(&fixtures.join(name), name, &images, &audio)).sum();
    assert!(compared >= 2 * existing.len());
}
