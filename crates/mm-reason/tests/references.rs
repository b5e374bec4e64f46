//! mm-reason against transformers: its own tiny checkpoints with random weights and odd sizes (`xtask/parity/reason.py`), its own token
//! ids, texts, scores and logits for the same files.

use mm_core::{Input, Modality, Source, Tensor};
use mm_reason::{
    EncodedMedia, Pipeline, Request, TrainBatch,
    generate::{EarlyStopping, GenerationConfig, LogitsProcessors},
};
use mm_repr::LoadOptions;
use serde_json::Value;
use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

/// The folders that `xtask/parity/reason.py` filled: the committed ones, or those of `MM_PARITY_REASON`.
fn top() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::env::var_os("MM_PARITY_REASON").map_or(own, PathBuf::from)
}

fn settings(base: &GenerationConfig, given: &Value) -> GenerationConfig {
    let count = |key: &str, otherwise: usize| given[key].as_u64().map_or(otherwise, |n| n as usize);
    let number = |key: &str, otherwise: f64| given[key].as_f64().unwrap_or(otherwise);
    GenerationConfig {
        max_new_tokens: count("max_new_tokens", 9),
        min_new_tokens: count("min_new_tokens", base.min_new_tokens),
        num_beams: count("num_beams", base.num_beams),
        length_penalty: number("length_penalty", base.length_penalty),
        repetition_penalty: number("repetition_penalty", base.repetition_penalty),
        no_repeat_ngram_size: count("no_repeat_ngram_size", base.no_repeat_ngram_size),
        early_stopping: match &given["early_stopping"] {
            Value::Bool(true) => EarlyStopping::FirstN,
            Value::String(_) => EarlyStopping::Never,
            _ => base.early_stopping,
        },
        ..base.clone()
    }
}

#[test]
fn every_family_says_what_its_reference_says_token_for_token() {
    // These models are so small that a second thread only waits for the first.
    mm_core::set_num_threads(1);
    let top = top();
    let mut variants: Vec<PathBuf> = std::fs::read_dir(&top)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.join("answers.json").exists())
        .collect();
    variants.sort();
    assert!(variants.len() > 6 || std::env::var_os("MM_PARITY_REASON").is_some());
    let wrong = RefCell::new(Vec::new());
    let (mut held, mut apart) = (0, 0);
    for variant in variants {
        let name = variant.file_name().unwrap().to_string_lossy().into_owned();
        let report = |text: String| wrong.borrow_mut().push(format!("{name}: {text}"));
        let answers: Value = serde_json::from_slice(&std::fs::read(variant.join("answers.json")).unwrap()).unwrap();
        let device = std::env::var("MM_TEST_DEVICE").map_or(mm_core::Device::Cpu, |d| d.parse().unwrap());
        let model = match Pipeline::load(&variant, LoadOptions { device, ..LoadOptions::default() }) {
            Ok(model) => model,
            Err(error) => {
                report(error.to_string());
                continue;
            }
        };
        if !model.unused.is_empty() && answers["unused"].is_null() {
            report(format!("not used: {:?}", model.unused));
        }
        let look = |row: &Value| {
            let kinds = [("image", Modality::IMAGE), ("audio", Modality::AUDIO), ("video", Modality::VIDEO)];
            let (file, modality) = kinds.iter().find_map(|(k, m)| Some((row[*k].as_str()?, m))).unwrap();
            model.encode_media(modality, &[Source::Path(top.join("inputs").join(file))])
        };
        let mut batches: BTreeMap<String, Vec<(EncodedMedia, String, &str, &Value)>> = BTreeMap::new();
        for (kind, rows) in answers.as_object().unwrap() {
            for row in rows.as_array().into_iter().flatten() {
                let text = |key: &str| row[key].as_str();
                let seen = match look(row) {
                    Ok(seen) => seen,
                    Err(error) => {
                        report(format!("{kind}: {error}"));
                        continue;
                    }
                };
                let messages = &row["messages"];
                let asked = match kind.as_str() {
                    "caption" => Request::Caption(text("prompt")),
                    "transcribe" => {
                        Request::Transcribe { language: text("language"), timestamps: row["timestamps"] == true }
                    }
                    "chat" => Request::Chat(messages),
                    _ => Request::Question(text("question").or(text("text")).unwrap_or_default()),
                };
                for said in row["said"].as_array().into_iter().flatten() {
                    held += 1;
                    if let Request::Question(words) | Request::Caption(Some(words)) = asked {
                        let batch = batches.entry(said["settings"].to_string()).or_default();
                        batch.push((look(row).unwrap(), words.to_owned(), kind, said));
                    }
                    let config = settings(&model.generation, &said["settings"]);
                    let what = format!("{kind} {} {} {}", row["image"], row["question"], said["settings"]);
                    match model.generate(Some(&seen), asked, &config, &LogitsProcessors::default(), &mut |_, _| {}) {
                        Err(error) => report(format!("{what}: {error}")),
                        Ok(found) => {
                            let best = &found[0][0];
                            let wanted: Vec<i64> = serde_json::from_value(said["ids"].clone()).unwrap();
                            if best.token_ids != wanted {
                                report(format!("{what}: found {:?}, wanted {wanted:?}", best.token_ids));
                                continue;
                            }
                            let text = model.tokenizer.decode(&best.token_ids).unwrap();
                            if said["text"].as_str() != Some(&text) {
                                report(format!("{what}: found {text:?}, wanted {}", said["text"]));
                            }
                            if best.finished != said["ended"].as_bool().unwrap() {
                                report(format!("{what}: ended: {}", best.finished));
                            }
                            if let Some(score) = said["score"].as_f64()
                                && (best.score - score).abs() > 1e-4 * score.abs().max(1.0)
                            {
                                report(format!("{what}: score {} instead of {score}", best.score));
                            }
                        }
                    }
                }
                if let Some(wanted) = row["segments"].as_array() {
                    held += 1;
                    let source = Source::Path(top.join("inputs").join(text("audio").unwrap()));
                    let config = GenerationConfig { max_new_tokens: 11, ..model.generation.clone() };
                    match model.transcribe(&source, text("language"), true, &config) {
                        Err(error) => report(format!("{kind}: {error}")),
                        Ok(found) => {
                            let show = |s: f64, e: f64, t: &str| format!("{s:.2}-{e:.2} {t}");
                            let mine: Vec<String> =
                                found.segments.iter().map(|s| show(s.start, s.end, &s.text)).collect();
                            let theirs = wanted.iter().map(|s| {
                                show(
                                    s["start"].as_f64().unwrap(),
                                    s["end"].as_f64().unwrap(),
                                    s["text"].as_str().unwrap(),
                                )
                            });
                            let theirs: Vec<String> = theirs.collect();
                            if mine != theirs {
                                report(format!("{kind} {}: found {mine:?}, wanted {theirs:?}", row["audio"]));
                            }
                        }
                    }
                    continue;
                }
                if let Some(wanted) = row["heat"].as_object() {
                    held += 1;
                    let said = wanted["said"].as_str().unwrap();
                    let wanted: Vec<f32> = serde_json::from_value(wanted["patches"].clone()).unwrap();
                    let heat = model.explain(&seen, asked, said).unwrap();
                    let off = heat.patches.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    if heat.patches.len() != wanted.len()
                        || heat.grid.iter().product::<usize>() != wanted.len()
                        || off > 1e-4
                    {
                        report(format!("{kind} {}: heat {:?} instead of {wanted:?}", row["question"], heat.patches));
                    }
                    // Each word looks with all that it has.
                    let all = heat.patches.iter().sum::<f32>() + heat.words.iter().map(|w| w.1).sum::<f32>();
                    if heat.words.is_empty() || !(0.0..=1.001).contains(&all) {
                        report(format!("{kind} {}: words {:?}", row["question"], heat.words));
                    }
                }
                if let Some(wanted) = row["score"].as_f64() {
                    held += 1;
                    match model.itm_score(&seen, text("text").unwrap()) {
                        Ok(found) if (found - wanted).abs() < 1e-4 => {}
                        other => report(format!("{kind}: found {other:?}, wanted {wanted}")),
                    }
                }
                if let Some(wanted) = row["logits"].as_object() {
                    held += 1;
                    let found = model.answer(Some(&seen), asked, &[], &model.generation).unwrap();
                    let most = wanted.values().filter_map(Value::as_f64).fold(0.0, |m: f64, v| m.max(v.abs()));
                    for scored in found {
                        let off = (scored.logit - wanted[&scored.answer].as_f64().unwrap()).abs() / most;
                        if off > 1e-4 {
                            report(format!("{kind} {}: {} is {off} off", row["image"], scored.answer));
                        }
                    }
                }
                if let Some(wanted) = row["likelihoods"].as_object() {
                    held += 1;
                    let choices: Vec<String> = wanted.keys().cloned().collect();
                    for scored in model.answer(Some(&seen), asked, &choices, &model.generation).unwrap() {
                        let off = scored.logit - wanted[&scored.answer].as_f64().unwrap();
                        if off.abs() > 1e-3 {
                            report(format!("{kind}: likelihood of {}: {off} off", scored.answer));
                        }
                    }
                }
            }
        }
        // The same in batches, whose rows read prompts of their own.
        for rows in batches.into_values().filter(|b| b.len() > 1) {
            let config = settings(&model.generation, &rows[0].3["settings"]);
            let all: Vec<(Option<&EncodedMedia>, Request<'_>)> = rows
                .iter()
                .map(|(seen, words, kind, _)| match *kind {
                    "caption" => (Some(seen), Request::Caption(Some(words))),
                    _ => (Some(seen), Request::Question(words)),
                })
                .collect();
            let read = |(seen, asked): &(Option<&EncodedMedia>, Request<'_>)| {
                let (question, prompt) = model.tokenize_request(*seen, *asked).unwrap();
                question.len() + prompt.len()
            };
            apart += usize::from(all.windows(2).any(|w| read(&w[0]) != read(&w[1])));
            for ((_, words, _, said), found) in rows.iter().zip(model.generate_batch(&all, &config)) {
                held += 1;
                let wanted: Vec<i64> = serde_json::from_value(said["ids"].clone()).unwrap();
                let found = &found.unwrap()[0].token_ids;
                if *found != wanted {
                    report(format!("{words} {} beside others: found {found:?}, wanted {wanted:?}", said["settings"]));
                }
            }
        }
    }
    assert!(apart > 3 || std::env::var_os("MM_PARITY_REASON").is_some(), "{apart} batches of different lengths");
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{} of {held} wrong:\n{}", wrong.len(), wrong.join("\n"));
    println!("{held} answers held");
}

/// The log-probability that learning gives an answer after its prompt, in a batch whose rows are padded, is that which saying it has.
#[test]
fn what_is_learned_from_is_what_is_said() {
    mm_core::set_num_threads(1);
    let top = top();
    let picture = Source::Path(top.join("inputs/wide.png"));
    let other = Source::Path(top.join("inputs/tall.jpg"));
    let sounds = ["short16.wav", "tone48.wav"].map(|name| Source::Path(top.join("inputs").join(name)));
    let folders = [
        "blip-caption",
        "blip-vqa",
        "git-caption",
        "vision-encoder-decoder-vit-gpt2",
        "llava-clip-llama",
        "qwen2_vl-picture",
        "vilt-vqa",
        "whisper-multilingual",
    ];
    let mut held = 0;
    let there: Vec<_> = folders.iter().filter(|n| top.join(n).exists()).collect();
    for name in &there {
        let (model, ..) = Pipeline::load_for_training(&top.join(name), LoadOptions::default(), None, None).unwrap();
        let plain = Pipeline::load(&top.join(name), LoadOptions::default()).unwrap();
        // ViLT's and Qwen2-VL's pictures keep their shapes: their batches are padded.
        let sources = vec![picture.clone(), other.clone()];
        let asks = !name.contains("caption") && !name.starts_with("vision");
        let questions = ["a dog over the fox", "fox"];
        let hears = name.starts_with("whisper");
        let (of, sources) = if hears { (Modality::AUDIO, sounds.to_vec()) } else { (Modality::IMAGE, sources) };
        let asked = |q: &'static str| match (hears, asks) {
            (true, _) => Request::Transcribe { language: None, timestamps: false },
            (_, true) => Request::Question(q),
            _ => Request::Caption(None),
        };
        let processor = model.train_processor(&of).unwrap();
        let numbers: Vec<Tensor> =
            sources.iter().map(|s| processor.process(s, &mut mm_core::ProcessContext::eval()).unwrap()).collect();
        let values = mm_data::collate(&numbers, processor.as_ref()).unwrap().values;
        let seen: Vec<_> = sources.iter().map(|s| plain.encode_media(&of, std::slice::from_ref(s)).unwrap()).collect();
        let pad = |rows: &[Vec<i64>]| {
            let longest = rows.iter().map(Vec::len).max().unwrap();
            let flat =
                rows.iter().flat_map(|r| (0..longest).map(|n| r.get(n).copied().unwrap_or(0))).collect::<Vec<_>>();
            let mask = rows.iter().flat_map(|r| (0..longest).map(|n| n < r.len())).collect::<Vec<_>>();
            let shape = [rows.len() as i64, longest as i64];
            (Tensor::from_vec(&flat, &shape).unwrap(), Tensor::from_vec(&mask, &shape).unwrap())
        };
        let written: Vec<_> =
            (0..2).map(|n| model.tokenize_request(Some(&seen[n]), asked(questions[n])).unwrap()).collect();
        let read = pad(&written.iter().map(|w| w.0.clone()).collect::<Vec<_>>());
        let question = Input { values: read.0, mask: Some(read.1) };
        let mut batch_input = TrainBatch {
            modality: &of,
            values: &values,
            question: Some(&question),
            decoder_input_ids: None,
            train: false,
        };
        if !model.can_generate() {
            let scores = model.forward(&batch_input).unwrap();
            for (n, question) in questions.iter().enumerate() {
                let alone = plain.answer_logits(&seen[n], Request::Question(question)).unwrap().select(0, 0).unwrap();
                let off = scores.select(0, n as i64).unwrap().sub(&alone).unwrap().abs().unwrap().max().unwrap();
                assert!(off.to_f64().unwrap() < 1e-4, "{name}");
                held += 1;
            }
            continue;
        }
        let answers = ["fox", "the quick brown dog"];
        let end = model.generation.eos_token_id[0];
        let said: Vec<Vec<i64>> = (0..2)
            .map(|n| {
                let ids = model.tokenizer.encode(answers[n], false).unwrap();
                written[n].1.iter().copied().chain(ids).chain([end]).collect()
            })
            .collect();
        let (ids, _) = pad(&said);
        batch_input.decoder_input_ids = Some(&ids);
        let scores = model.forward(&batch_input).unwrap().log_softmax(-1).unwrap();
        for n in 0..2 {
            let row = scores.select(0, n as i64).unwrap();
            let begun = written[n].1.len();
            let total: f64 = (begun..said[n].len())
                .map(|at| row.select(0, at as i64 - 1).unwrap().select(0, said[n][at]).unwrap().to_f64().unwrap())
                .sum();
            let alone =
                plain.answer(Some(&seen[n]), asked(questions[n]), &[answers[n].to_owned()], &plain.generation).unwrap();
            assert!((total - alone[0].logit).abs() < 1e-3, "{name}: {total} instead of {}", alone[0].logit);
            held += 1;
        }
    }
    assert!(held >= 2 * there.len()); // `xtask parity` may have made other families alone
}
