//! How good captions are, against several references each, as COCO's evaluation does it (Chen 2015): BLEU-1 to 4 (Papineni 2002), ROUGE-L
//! (Lin 2004), CIDEr-D (Vedantam 2015); and METEOR of exact words and word stems (Banerjee 2005), without its tables of synonyms and
//! paraphrases. SPICE is left out: it parses sentences with a program in Java.

use std::collections::{BTreeSet, HashMap};

/// Words as the Penn treebank's tokenizer cuts them, lower-cased, without punctuation: what COCO's evaluation compares.
pub fn caption_words(text: &str) -> Vec<String> {
    // COCO's list has the brackets in capitals, which lower-cased words never match: they stay, as `-lrb-` and the like.
    const PUNCTUATION: [&str; 13] = ["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", ";", "\""];
    const SHORT: [&str; 16] =
        ["mr", "mrs", "ms", "dr", "st", "jr", "sr", "vs", "prof", "inc", "ltd", "co", "corp", "mt", "ave", "etc"];
    let mut out: Vec<String> = Vec::new();
    for word in text.replace('\n', " ").to_lowercase().split_whitespace() {
        let mut piece = String::new();
        let letters: Vec<char> = word.chars().collect();
        let flush = |piece: &mut String, out: &mut Vec<String>| {
            if !piece.is_empty() {
                out.push(std::mem::take(piece));
            }
        };
        for (n, c) in letters.iter().enumerate() {
            let inside =
                |ok: fn(char) -> bool| n > 0 && n + 1 < letters.len() && ok(letters[n - 1]) && ok(letters[n + 1]);
            let keeps = match c {
                '-' | '\'' | '’' => inside(char::is_alphanumeric),
                '.' | ',' | ':' => inside(|c| c.is_ascii_digit()),
                '/' => inside(char::is_alphabetic),
                c => c.is_alphanumeric() || matches!(c, '_' | '$' | '%' | '&' | '#' | '@' | '*' | '+' | '='),
            };
            // Abbreviations keep their dot: `mr.`, `u.s.`
            let dotted = *c == '.'
                && (SHORT.contains(&piece.as_str())
                    || (piece.chars().count() % 2 == 1
                        && (piece.contains('.') || letters.get(n + 1).is_some_and(|c| c.is_alphabetic()))
                        && piece
                            .chars()
                            .enumerate()
                            .all(|(k, c)| if k % 2 == 0 { c.is_alphabetic() } else { c == '.' })));
            let bracket = match c {
                '(' => Some("-lrb-"),
                ')' => Some("-rrb-"),
                '[' => Some("-lsb-"),
                ']' => Some("-rsb-"),
                '{' => Some("-lcb-"),
                '}' => Some("-rcb-"),
                _ => None,
            };
            if let Some(bracket) = bracket {
                flush(&mut piece, &mut out);
                out.push(bracket.to_owned());
            } else if keeps || dotted {
                piece.push(if *c == '’' { '\'' } else { *c });
            } else {
                flush(&mut piece, &mut out);
                out.push(c.to_string());
            }
        }
        flush(&mut piece, &mut out);
    }
    // `dog's` → `dog` `'s`, `don't` → `do` `n't`, `cannot` → `can` `not`.
    let mut split = Vec::new();
    for word in out {
        let ends = ["'s", "'re", "'ve", "'ll", "'m", "'d", "n't"];
        match ends.iter().find(|e| word.len() > e.len() && word.ends_with(**e)) {
            Some(end) => {
                split.push(word[..word.len() - end.len()].to_owned());
                split.push((*end).to_owned());
            }
            None if word == "cannot" => split.extend(["can".to_owned(), "not".to_owned()]),
            None => split.push(word),
        }
    }
    split.retain(|w| !PUNCTUATION.contains(&w.as_str()));
    split
}

type Grams<'a> = HashMap<&'a [String], f64>;

fn grams(words: &[String], n: usize) -> Grams<'_> {
    let mut out = HashMap::new();
    for gram in words.windows(n) {
        *out.entry(gram).or_insert(0.0) += 1.0;
    }
    out
}

/// A caption and what people said of the same picture, in words.
pub type Pair = (Vec<String>, Vec<Vec<String>>);

/// BLEU-1 to 4 over all captions, each compared with the reference that is nearest in length.
pub fn bleu(pairs: &[Pair]) -> [f64; 4] {
    let (mut guesses, mut right) = ([0f64; 4], [0f64; 4]);
    let (mut said, mut wanted) = (0f64, 0f64);
    for (caption, references) in pairs {
        said += caption.len() as f64;
        let nearest = references.iter().map(Vec::len).min_by_key(|l| (l.abs_diff(caption.len()), *l)).unwrap_or(0);
        wanted += nearest as f64;
        for n in 1..=4 {
            let own = grams(caption, n);
            let mut most: Grams<'_> = HashMap::new();
            for reference in references {
                for (gram, count) in grams(reference, n) {
                    let held = most.entry(gram).or_insert(0.0);
                    *held = held.max(count);
                }
            }
            guesses[n - 1] += (caption.len() + 1).saturating_sub(n) as f64;
            right[n - 1] += own.iter().map(|(g, c)| c.min(most.get(g).copied().unwrap_or(0.0))).sum::<f64>();
        }
    }
    let (tiny, small) = (1e-15, 1e-9);
    let mut out = [0f64; 4];
    let mut product = 1.0;
    for n in 0..4 {
        product *= (right[n] + tiny) / (guesses[n] + small);
        out[n] = product.powf(1.0 / (n + 1) as f64);
    }
    let ratio = (said + tiny) / (wanted + small);
    if ratio < 1.0 {
        out.iter_mut().for_each(|b| *b *= (1.0 - 1.0 / ratio).exp());
    }
    out
}

fn common(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0usize; b.len() + 1];
    for x in a {
        let mut before = 0;
        for (n, y) in b.iter().enumerate() {
            let held = row[n + 1];
            row[n + 1] = if x == y { before + 1 } else { row[n + 1].max(row[n]) };
            before = held;
        }
    }
    row[b.len()]
}

/// ROUGE-L: the longest common subsequence, β = 1.2; the mean over captions.
pub fn rouge_l(pairs: &[Pair]) -> f64 {
    let one = |(caption, references): &Pair| {
        let (mut precision, mut recall) = (0f64, 0f64);
        for reference in references {
            let lcs = common(reference, caption) as f64;
            // Of a caption without words COCO's evaluation sees one empty word.
            precision = precision.max(lcs / caption.len().max(1) as f64);
            recall = recall.max(lcs / reference.len().max(1) as f64);
        }
        let beta2 = 1.2f64 * 1.2;
        if precision > 0.0 && recall > 0.0 {
            (1.0 + beta2) * precision * recall / (recall + beta2 * precision)
        } else {
            0.0
        }
    };
    pairs.iter().map(one).sum::<f64>() / pairs.len().max(1) as f64
}

/// CIDEr-D of each caption: cosines of n-grams weighted by how few of the pictures' references have them, lengths penalised (σ = 6).
pub fn cider_d(pairs: &[Pair]) -> Vec<f64> {
    let mut documents: HashMap<&[String], f64> = HashMap::new();
    for (_, references) in pairs {
        let mut seen: BTreeSet<&[String]> = BTreeSet::new();
        for reference in references {
            for n in 1..=4 {
                reference.windows(n).for_each(|g| {
                    seen.insert(g);
                });
            }
        }
        seen.into_iter().for_each(|g| *documents.entry(g).or_insert(0.0) += 1.0);
    }
    let all = (pairs.len() as f64).ln();
    let vector = |words: &[String]| {
        let mut weights: [HashMap<Vec<String>, f64>; 4] = Default::default();
        let mut norms = [0f64; 4];
        for n in 1..=4 {
            for (gram, count) in grams(words, n) {
                let weight = count * (all - documents.get(gram).copied().unwrap_or(0.0).max(1.0).ln());
                norms[n - 1] += weight * weight;
                weights[n - 1].insert(gram.to_vec(), weight);
            }
        }
        // The length that COCO's evaluation compares: the number of pairs of words.
        (weights, norms.map(f64::sqrt), words.len().saturating_sub(1) as f64)
    };
    let one = |(caption, references): &Pair| {
        let (own, own_norm, own_length) = vector(caption);
        let mut score = 0.0;
        for reference in references {
            let (other, other_norm, other_length) = vector(reference);
            let apart = own_length - other_length;
            for n in 0..4 {
                let dot: f64 = own[n]
                    .iter()
                    .map(|(g, w)| {
                        let theirs = other[n].get(g).copied().unwrap_or(0.0);
                        w.min(theirs) * theirs
                    })
                    .sum();
                let norms = own_norm[n] * other_norm[n];
                let cosine = if norms > 0.0 { dot / norms } else { dot };
                score += cosine * (-(apart * apart) / 72.0).exp();
            }
        }
        10.0 * score / 4.0 / references.len().max(1) as f64
    };
    pairs.iter().map(one).collect()
}

/// A word without its ending: plural, -ing, -ed, -ly (a light form of Porter's stemmer, 1980).
fn stem(word: &str) -> &str {
    for (end, least) in [("ing", 3), ("edly", 3), ("ies", 2), ("es", 3), ("ed", 3), ("ly", 3), ("s", 3)] {
        if let Some(start) = word.strip_suffix(end)
            && start.chars().count() >= least
            && !(end == "s" && start.ends_with('s'))
        {
            return start;
        }
    }
    word
}

/// METEOR of exact words and stems (α = 0.9, β = 3, γ = 0.5); the mean over captions of the best reference.
pub fn meteor(pairs: &[Pair]) -> f64 {
    let one = |caption: &[String], reference: &[String]| -> f64 {
        // Each word meets the first free equal one, exact words before stems.
        let mut met: Vec<Option<usize>> = vec![None; caption.len()];
        let mut free = vec![true; reference.len()];
        for by_stem in [false, true] {
            for (n, word) in caption.iter().enumerate() {
                if met[n].is_some() {
                    continue;
                }
                let same = |r: &String| if by_stem { stem(r) == stem(word) } else { r == word };
                // Going on beside the word before keeps pieces together.
                let beside = n.checked_sub(1).and_then(|p| met[p]).map(|m| m + 1);
                let beside = beside.filter(|m| *m < reference.len() && free[*m] && same(&reference[*m]));
                let found = beside.or_else(|| (0..reference.len()).find(|m| free[*m] && same(&reference[*m])));
                if let Some(m) = found {
                    met[n] = Some(m);
                    free[m] = false;
                }
            }
        }
        let matches = met.iter().flatten().count() as f64;
        if matches == 0.0 {
            return 0.0;
        }
        let mut chunks = 0.0;
        let mut last: Option<usize> = None;
        for m in &met {
            if let Some(m) = m
                && last.is_none_or(|l| l + 1 != *m)
            {
                chunks += 1.0;
            }
            last = *m;
        }
        let (precision, recall) = (matches / caption.len() as f64, matches / reference.len() as f64);
        let mean = precision * recall / (0.9 * precision + 0.1 * recall);
        mean * (1.0 - 0.5 * (chunks / matches).powi(3))
    };
    let best = |(caption, references): &Pair| references.iter().map(|r| one(caption, r)).fold(0.0, f64::max);
    pairs.iter().map(best).sum::<f64>() / pairs.len().max(1) as f64
}

/// All of them by name, of captions and their references as texts.
pub fn captions(said: &[String], references: &[Vec<String>]) -> super::Figures {
    let words = |texts: &Vec<String>| texts.iter().map(|t| caption_words(t)).collect::<Vec<_>>();
    let pairs: Vec<Pair> = said.iter().zip(references).map(|(s, r)| (caption_words(s), words(r))).collect();
    let mut out = super::Figures::new();
    for (n, value) in bleu(&pairs).into_iter().enumerate() {
        out.insert(format!("bleu{}", n + 1), value);
    }
    let cider = cider_d(&pairs);
    out.insert("cider_d".into(), cider.iter().sum::<f64>() / cider.len().max(1) as f64);
    out.insert("rouge_l".into(), rouge_l(&pairs));
    out.insert("meteor_exact_stem".into(), meteor(&pairs));
    out.insert("rows".into(), pairs.len() as f64);
    out
}
