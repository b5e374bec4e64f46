use super::*;

/// Sentences about two worlds that share no neighbours; `kinds` makes how many words each world has.
fn corpus(file: &Path) {
    let mut random = train::Random::new(7);
    let mut draw = |bound: u64| (random.next() >> 33) % bound;
    let mut text = String::new();
    for _ in 0..4000 {
        let world = draw(2);
        for _ in 0..8 {
            let word = if draw(5) == 0 { format!("the{} ", draw(3)) } else { format!("w{world}x{} ", draw(6)) };
            text.push_str(&word);
        }
        text.push('\n');
    }
    std::fs::write(file, text).unwrap();
}

fn learn(file: &Path, work: &Path, config: &Word2VecConfig) -> WordVectors {
    let never = AtomicBool::new(false);
    WordVectors::train(&[file.to_owned()], config, None, work, &never, &|_| {}).unwrap().unwrap()
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
fn every_way_of_learning_tells_two_worlds_apart_and_one_thread_is_deterministic() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    corpus(&file);
    for (number, (architecture, negative, subwords, threads)) in [
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
        let config = Word2VecConfig {
            architecture,
            negative,
            share_negatives: negative != 4,
            workers: threads,
            subwords,
            ..config()
        };
        let words = learn(&file, &folder.path().join(format!("work{number}")), &config);
        for world in 0..2 {
            let nearest = words.most_similar(&format!("w{world}x0"), 5).unwrap();
            let right = nearest.iter().filter(|(w, _)| w.starts_with(&format!("w{world}"))).count();
            assert_eq!(right, 5, "{config:?}: {nearest:?}");
        }
        if threads == 1 {
            let again = learn(&file, &folder.path().join(format!("again{number}")), &config);
            assert_eq!(words.input, again.input, "{config:?}");
        }
    }
}

#[test]
fn an_interrupted_training_goes_on_to_the_same_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    corpus(&file);
    let whole = learn(&file, &folder.path().join("whole"), &config());
    let (work, stop) = (folder.path().join("cut"), AtomicBool::new(false));
    // Stopped as the second pass begins: the first is kept.
    let told = |p: Progress| {
        if let Progress::Training(done, all) = p
            && done >= all / 3
        {
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    };
    let files = [file.clone()];
    let slow = config();
    assert!(WordVectors::train(&files, &slow, None, &work, &stop, &told).unwrap().is_none());
    assert!(work.join("state.json").exists());
    let other = Word2VecConfig { seed: 9, ..config() };
    let text =
        WordVectors::train(&files, &other, None, &work, &AtomicBool::new(false), &|_| {}).unwrap_err().to_string();
    assert!(text.contains("other settings"), "{text}");
    let words = learn(&file, &work, &slow);
    assert_eq!(words.input, whole.input);
}

#[test]
fn every_format_is_read_as_it_was_written_and_broken_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    corpus(&file);
    let subwords = Some(SubwordConfig { min_n: 2, max_n: 3, bucket: 300 });
    let words = learn(&file, &folder.path().join("work"), &Word2VecConfig { subwords, ..config() });
    for (name, format) in [("v.txt", Format::Text), ("v.bin", Format::Binary), ("v.ft", Format::FastText)] {
        let path = folder.path().join(name);
        words.save(&path, format).unwrap();
        assert_eq!(Format::detect(&path).unwrap(), format, "{name}");
        let read = WordVectors::load(&path).unwrap();
        assert_eq!(read.vocabulary.words, words.vocabulary.words);
        for word in &words.vocabulary.words {
            let (a, b) = (words.vector(word).unwrap(), read.vector(word).unwrap());
            assert!(a.iter().zip(&b).all(|(x, y)| (x - y).abs() < 1e-6), "{name} {word}");
        }
        // A word that was never seen has a vector where n-grams are kept.
        assert_eq!(read.vector("w0x99").is_some(), format == Format::FastText);
        let bytes = std::fs::read(&path).unwrap();
        for cut in (0..bytes.len()).step_by(bytes.len() / 40 + 1) {
            std::fs::write(folder.path().join("cut"), &bytes[..cut]).unwrap();
            // A text that ends between two lines is told by its count.
            assert!(WordVectors::load(&folder.path().join("cut")).is_err(), "{name} cut at {cut}");
        }
    }
    std::fs::write(folder.path().join("lie"), "99999999999 300\nx 1\n").unwrap();
    assert!(WordVectors::load(&folder.path().join("lie")).unwrap_err().to_string().contains("more than its"));
    assert!(words.most_similar("w0x", 3).is_ok());
    let plain = learn(&file, &folder.path().join("plain"), &config());
    assert!(plain.most_similar("w0x9", 3).unwrap_err().to_string().contains("did you mean `w0x"));
}

#[test]
fn phrases_join_what_stands_together_and_ranks_share_ties() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    let text =
        "we saw new york today\nnew york is big\nthe new house is big\nin york we saw new things\nnew york new york\n"
            .repeat(20);
    std::fs::write(&file, text).unwrap();
    let phrases = Phrases::fit(&[file], 5, 0.04).unwrap();
    assert!(phrases.score("new", "york").is_some() && phrases.score("york", "today").is_none() || phrases.count() > 0);
    assert_eq!(phrases.join(&["a", "new", "york", "day"]), ["a", "new_york", "day"]);
    assert!((evaluate::spearman(&[1.0, 2.0, 2.0, 4.0], &[1.0, 3.0, 2.0, 4.0]) - 0.948_683_298).abs() < 1e-6);
}

#[test]
fn gensims_files_are_read_as_gensim_reads_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/words");
    let answers: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("answers.json")).unwrap()).unwrap();
    for (name, key) in [("gensim.txt", "known"), ("gensim.bin", "known"), ("gensim-fasttext.bin", "fasttext")] {
        let words = WordVectors::load(&folder.join(name)).unwrap();
        for (word, wanted) in answers[key].as_object().unwrap() {
            let found = words.vector(word).unwrap_or_default();
            let wanted: Vec<f32> = wanted.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
            assert!(found.len() == 11 && found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{name} {word}");
        }
    }
    let words = WordVectors::load(&folder.join("gensim-fasttext.bin")).unwrap();
    let similar = words.most_similar("alpha", 3).unwrap();
    for ((word, cosine), wanted) in similar.iter().zip(answers["similar"].as_array().unwrap()) {
        assert!(wanted[0] == *word && (wanted[1].as_f64().unwrap() as f32 - cosine).abs() < 1e-4, "{similar:?}");
    }
}

#[test]
fn texts_are_weighted_means_of_their_words_whatever_they_are_batched_with() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("corpus.txt");
    corpus(&file);
    let words = std::sync::Arc::new(learn(&file, &folder.path().join("work"), &config()));
    let encoder = WordVectorsEncoder::new(words.vector_size);
    for weighting in [Weighting::Mean, Weighting::Sif(1e-3), Weighting::InverseFrequency] {
        let processor = WordVectorsProcessor::new(words.clone(), weighting, "");
        let texts = ["W0x1, w0x2!", "the0 w1x1 nowhere w1x2 w1x3", "unknown words"];
        let make = |t: &str| {
            let source = mm_core::Source::Text(t.to_owned());
            mm_core::Processor::process(&processor, &source, &mut mm_core::ProcessContext::eval()).unwrap()
        };
        let samples: Vec<_> = texts.iter().map(|t| make(t)).collect();
        let embed = |s: &[mm_core::Tensor]| {
            mm_core::Encoder::embed(&encoder, &mm_data::collate(s, &processor).unwrap(), false)
                .unwrap()
                .to_vec::<f32>()
                .unwrap()
        };
        let together = embed(&samples);
        for (row, sample) in samples.iter().enumerate() {
            let alone = embed(std::slice::from_ref(sample));
            let found = &together[row * 20..(row + 1) * 20];
            assert!(alone.iter().zip(found).all(|(a, b)| (a - b).abs() < 1e-6), "{weighting:?}");
        }
        assert!(together[40..].iter().all(|v| *v == 0.0));
    }
}
