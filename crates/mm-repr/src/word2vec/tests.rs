use super::{sampling::Rng, *};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Writes sentences about two topics of six words each (`w0x0` … `w1x5`) that share only three function words.
fn write_corpus(file: &Path) {
    let mut rng = Rng::new(7);
    let mut sample = |bound: u64| (rng.next() >> 33) % bound;
    let mut text = String::new();
    for _ in 0..4000 {
        let topic = sample(2);
        for _ in 0..8 {
            let word = if sample(5) == 0 { format!("the{} ", sample(3)) } else { format!("w{topic}x{} ", sample(6)) };
            text.push_str(&word);
        }
        text.push('\n');
    }
    std::fs::write(file, text).unwrap();
}

fn train(file: &Path, work_dir: &Path, config: &Word2VecConfig) -> WordVectors {
    let stop = AtomicBool::new(false);
    WordVectors::train(&[file.to_owned()], config, None, work_dir, &stop, &|_| {}).unwrap().unwrap()
}

fn config() -> Word2VecConfig {
    Word2VecConfig {
        vector_size: 20,
        window: 3,
        min_count: 1,
        sample: 0.0,
        epochs: 3,
        workers: 1,
        seed: 3,
        alpha: 0.05,
        ..Word2VecConfig::default()
    }
}

#[test]
fn every_training_mode_separates_two_topics_and_one_thread_is_deterministic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    write_corpus(&file);
    // Four negatives stand for negatives that are not shared.
    for (run, (architecture, negative, subwords, workers)) in [
        (Architecture::SkipGram, 5, false, 1),
        (Architecture::SkipGram, 4, false, 1),
        (Architecture::SkipGram, 0, false, 1),
        (Architecture::Cbow, 5, false, 1),
        (Architecture::Cbow, 0, false, 1),
        (Architecture::SkipGram, 5, true, 2),
        (Architecture::Cbow, 5, true, 2),
    ]
    .into_iter()
    .enumerate()
    {
        let subwords = subwords.then_some(SubwordConfig { min_n: 3, max_n: 4, bucket: 500 });
        let share_negatives = negative != 4;
        let config = Word2VecConfig { architecture, negative, share_negatives, workers, subwords, ..config() };
        let vectors = train(&file, &folder.path().join(format!("work{run}")), &config);
        for topic in 0..2 {
            let nearest = vectors.most_similar(&format!("w{topic}x0"), 5).unwrap();
            let same_topic = nearest.iter().filter(|(w, _)| w.starts_with(&format!("w{topic}"))).count();
            assert_eq!(same_topic, 5, "{config:?}: {nearest:?}");
        }
        if workers == 1 {
            let again = train(&file, &folder.path().join(format!("again{run}")), &config);
            assert_eq!(vectors.input, again.input, "{config:?}");
        }
    }
}

#[test]
fn resumed_training_gives_the_same_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    write_corpus(&file);
    let uninterrupted = train(&file, &folder.path().join("uninterrupted"), &config());
    let (work_dir, stop) = (folder.path().join("interrupted"), AtomicBool::new(false));
    // Stops at the start of the second epoch, after the checkpoint of the first.
    let on_progress = |progress: Progress| {
        if let Progress::Training(done, total) = progress
            && done >= total / 3
        {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let files = [file.clone()];
    assert!(WordVectors::train(&files, &config(), None, &work_dir, &stop, &on_progress).unwrap().is_none());
    assert!(work_dir.join("checkpoint.f32").exists());
    let other = Word2VecConfig { seed: 9, ..config() };
    let result = WordVectors::train(&files, &other, None, &work_dir, &AtomicBool::new(false), &|_| {});
    let error = result.unwrap_err().to_string();
    assert!(error.contains("other options"), "{error}");
    let resumed = train(&file, &work_dir, &config());
    assert_eq!(resumed.input, uninterrupted.input);
}

#[test]
fn formats_round_trip_and_truncated_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    write_corpus(&file);
    let subwords = Some(SubwordConfig { min_n: 2, max_n: 3, bucket: 300 });
    let vectors = train(&file, &folder.path().join("work"), &Word2VecConfig { subwords, ..config() });
    for (name, format) in [("v.txt", Format::Text), ("v.bin", Format::Binary), ("v.ft", Format::FastText)] {
        let path = folder.path().join(name);
        vectors.save(&path, format).unwrap();
        assert_eq!(Format::detect(&path).unwrap(), format, "{name}");
        let loaded = WordVectors::load(&path).unwrap();
        assert_eq!(loaded.vocabulary.words, vectors.vocabulary.words);
        for word in &vectors.vocabulary.words {
            let (a, b) = (vectors.vector(word).unwrap(), loaded.vector(word).unwrap());
            assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-6), "{name} {word}");
        }
        // Only fastText's format keeps the n-grams, which give vectors to out-of-vocabulary words.
        assert_eq!(loaded.vector("w0x99").is_some(), format == Format::FastText);
        let bytes = std::fs::read(&path).unwrap();
        let truncated = folder.path().join("truncated");
        for length in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            std::fs::write(&truncated, &bytes[..length]).unwrap();
            assert!(WordVectors::load(&truncated).is_err(), "{name} truncated to {length} bytes");
        }
    }
    let wrong_header = folder.path().join("header");
    std::fs::write(&wrong_header, "99999999999 300\nx 1\n").unwrap();
    let error = WordVectors::load(&wrong_header).unwrap_err().to_string();
    assert!(error.contains("do not fit in its 20 bytes"), "{error}");
    assert!(vectors.most_similar("w0x", 3).is_ok());
    let without_subwords = train(&file, &folder.path().join("plain"), &config());
    let error = without_subwords.most_similar("w0x9", 3).unwrap_err().to_string();
    assert!(error.contains("did you mean `w0x"), "{error}");
}

#[test]
fn phrases_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    let text =
        "we saw new york today\nnew york is big\nthe new house is big\nin york we saw new things\nnew york new york\n"
            .repeat(20);
    std::fs::write(&file, text).unwrap();
    let phrases = Phrases::fit(&[file], 5, 0.04).unwrap();
    let scores = (phrases.score("new", "york"), phrases.score("york", "today"));
    assert!(scores.0.is_some() && scores.1.is_none() || phrases.num_pairs() > 0);
    assert_eq!(phrases.transform(&["a", "new", "york", "day"]), ["a", "new_york", "day"]);
}

#[test]
fn spearman_correlation_averages_the_ranks_of_ties() {
    assert!((evaluate::spearman(&[1.0, 2.0, 2.0, 4.0], &[1.0, 3.0, 2.0, 4.0]) - 0.948_683_298).abs() < 1e-6);
}

#[test]
fn files_written_by_gensim_give_its_vectors() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/words");
    let answers: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("answers.json")).unwrap()).unwrap();
    for (name, key) in [("gensim.txt", "known"), ("gensim.bin", "known"), ("gensim-fasttext.bin", "fasttext")] {
        let vectors = WordVectors::load(&folder.join(name)).unwrap();
        for (word, expected) in answers[key].as_object().unwrap() {
            let found = vectors.vector(word).unwrap_or_default();
            let expected: Vec<f32> = expected.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            let close = found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(found.len() == 11 && close, "{name} {word}");
        }
    }
    let vectors = WordVectors::load(&folder.join("gensim-fasttext.bin")).unwrap();
    let similar = vectors.most_similar("alpha", 3).unwrap();
    for ((word, cosine), expected) in similar.iter().zip(answers["similar"].as_array().unwrap()) {
        assert!(expected[0] == *word && (expected[1].as_f64().unwrap() as f32 - cosine).abs() < 1e-4, "{similar:?}");
    }
}

#[test]
fn text_embeddings_do_not_depend_on_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    write_corpus(&file);
    let vectors = Arc::new(train(&file, &folder.path().join("work"), &config()));
    let encoder = WordVectorsEncoder::new(vectors.vector_size);
    for weighting in [Weighting::Mean, Weighting::Sif(1e-3), Weighting::InverseFrequency] {
        let processor = WordVectorsProcessor::new(vectors.clone(), weighting, "");
        let texts = ["W0x1, w0x2!", "the0 w1x1 nowhere w1x2 w1x3", "unknown words"];
        let process = |text: &str| {
            let source = mm_core::Source::Text(text.to_owned());
            mm_core::Processor::process(&processor, &source, &mut mm_core::ProcessContext::eval()).unwrap()
        };
        let samples: Vec<_> = texts.iter().map(|text| process(text)).collect();
        let embed = |samples: &[mm_core::Tensor]| {
            mm_core::Encoder::embed(&encoder, &mm_data::collate(samples, &processor).unwrap(), false)
                .unwrap()
                .to_vec::<f32>()
                .unwrap()
        };
        let batch = embed(&samples);
        for (row, sample) in samples.iter().enumerate() {
            let alone = embed(std::slice::from_ref(sample));
            let found = &batch[row * 20..(row + 1) * 20];
            assert!(alone.iter().zip(found).all(|(a, b)| (a - b).abs() < 1e-6), "{weighting:?}");
        }
        assert!(batch[40..].iter().all(|v| *v == 0.0));
    }
}

/// A file of three vectors of dimension 2 in word2vec's binary format, as gensim writes it.
fn binary_file(header: &str, words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("{header}\n").into_bytes();
    for (index, word) in words.iter().enumerate() {
        bytes.extend(*word);
        bytes.push(b' ');
        for value in [index as f32 + 0.5, -1.25] {
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes
}

#[test]
fn a_bad_byte_leaves_a_text_file_a_text_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.txt");
    for bad in [0usize, 1, 2] {
        let mut text = b"3 2\n".to_vec();
        for (index, word) in ["alpha", "beta", "gamma"].iter().enumerate() {
            text.extend(word.as_bytes());
            if index == bad {
                text.extend(b"\xff");
            }
            text.extend(format!(" {index}.5 -1\n").as_bytes());
        }
        std::fs::write(&path, &text).unwrap();
        assert_eq!(Format::detect(&path).unwrap(), Format::Text);
        let vectors = WordVectors::load(&path).unwrap();
        assert_eq!(vectors.vocabulary.words.len(), 3);
        let word = &vectors.vocabulary.words[bad];
        assert!(word.ends_with('\u{fffd}'), "{word}");
        assert_eq!(vectors.vector(word).unwrap(), [bad as f32 + 0.5, -1.0]);
    }
}

#[test]
fn the_first_vector_of_a_repeated_word_counts_as_in_gensim() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors");
    let text = b"4 2\nsame 1 2\nother 3 4\nsame 5 6\nlast 7 8\n".to_vec();
    for (format, bytes) in
        [(Format::Text, text), (Format::Binary, binary_file("4 2", &[b"same", b"other", b"same", b"last"]))]
    {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(Format::detect(&path).unwrap(), format);
        let vectors = WordVectors::load(&path).unwrap();
        assert_eq!(vectors.vocabulary.words, ["same", "other", "last"]);
        let (first, last) =
            if format == Format::Text { ([1.0, 2.0], [7.0, 8.0]) } else { ([0.5, -1.25], [3.5, -1.25]) };
        assert_eq!(vectors.vector("same").unwrap(), first);
        assert_eq!(vectors.vector("last").unwrap(), last);
        assert_eq!(vectors.most_similar("same", 9).unwrap().len(), 2);
    }
}

#[test]
fn words_with_spaces_are_read_and_not_written_in_the_binary_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors.bin");
    std::fs::write(&path, binary_file("3 2", &[b"new york", b"paris", "são paulo".as_bytes()])).unwrap();
    let vectors = WordVectors::load(&path).unwrap();
    assert_eq!(vectors.vocabulary.words, ["new york", "paris", "são paulo"]);
    assert_eq!(vectors.vector("são paulo").unwrap(), [2.5, -1.25]);
    let error = vectors.save(&path, Format::Binary).unwrap_err().to_string();
    assert!(error.contains("cannot hold the word \"new york\""), "{error}");
    assert!(!folder.path().join("vectors.bin.new").exists());
    vectors.save(&path, Format::Text).unwrap();
    assert_eq!(WordVectors::load(&path).unwrap().vector("new york").unwrap(), [0.5, -1.25]);
    // More than the header says is an error, not a cut.
    std::fs::write(&path, binary_file("2 2", &[b"one", b"two", b"three"])).unwrap();
    assert!(WordVectors::load(&path).unwrap_err().to_string().contains("14 bytes follow the last of 2 words"));
    std::fs::write(&path, "1 2\na 1 2\nb 3 4\n").unwrap();
    assert!(WordVectors::load(&path).unwrap_err().to_string().contains("1 more lines follow"));
}

#[test]
fn a_word_with_a_zero_byte_is_not_written_as_fasttext() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vectors");
    std::fs::write(&path, "2 1\na\0b 1\nc 2\n").unwrap();
    let vectors = WordVectors::load(&path).unwrap();
    assert_eq!(vectors.vocabulary.words, ["a\0b", "c"]);
    let error = vectors.save(&path, Format::FastText).unwrap_err().to_string();
    assert!(error.contains("cannot hold the word \"a\\0b\""), "{error}");
    assert_eq!(WordVectors::load(&path).unwrap().vocabulary.words, ["a\0b", "c"]);
}

#[test]
fn vectors_of_dimension_zero_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.bin");
    let file = folder.path().join("corpus.txt");
    write_corpus(&file);
    let vectors = train(&file, &folder.path().join("work"), &config());
    vectors.save(&path, Format::FastText).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8..12].fill(0);
    std::fs::write(&path, bytes).unwrap();
    let error = WordVectors::load(&path).unwrap_err().to_string();
    assert!(error.contains("dimension: found 0"), "{error}");
    std::fs::write(&path, "1 0\nword\n").unwrap();
    assert!(WordVectors::load(&path).unwrap_err().to_string().contains("dimension 0"));
}
