//! How good captions are, against several references each, as COCO's evaluation does it (Chen 2015): BLEU-1 to 4 (Papineni 2002), ROUGE-L
//! (Lin 2004), CIDEr-D (Vedantam 2015); and METEOR of exact words and word stems (Banerjee 2005), without its tables of synonyms and
//! paraphrases. SPICE is left out: it parses sentences with a program in Java.

use super::Figures;
use crate::{Error, Result};
use mm_core::{DType, Modality, Source, Tensor};
use mm_repr::Pretrained;
use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

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

/// CIDEr-D of captions: cosines of n-grams weighted by how few of the pictures' references have them, lengths penalised (σ = 6).
pub struct Cider {
    documents: HashMap<Vec<String>, f64>,
    /// The logarithm of the number of pictures.
    all: f64,
}

impl Cider {
    /// Weights of n-grams from the references of pictures.
    pub fn new<'a>(pictures: impl Iterator<Item = &'a [Vec<String>]>) -> Self {
        let (mut documents, mut count) = (HashMap::<Vec<String>, f64>::new(), 0usize);
        for references in pictures {
            let seen: BTreeSet<&[String]> =
                references.iter().flat_map(|r| (1..=4).flat_map(move |n| r.windows(n))).collect();
            for gram in seen {
                match documents.get_mut(gram) {
                    Some(n) => *n += 1.0,
                    None => drop(documents.insert(gram.to_vec(), 1.0)),
                }
            }
            count += 1;
        }
        Self { documents, all: (count as f64).ln() }
    }

    /// Weights of a text's n-grams, their norms, and the length that COCO's evaluation compares: the number of pairs of words.
    fn vector<'a>(&self, words: &'a [String]) -> ([HashMap<&'a [String], f64>; 4], [f64; 4], f64) {
        let mut weights: [HashMap<&[String], f64>; 4] = Default::default();
        let mut norms = [0f64; 4];
        for n in 1..=4 {
            for (gram, count) in grams(words, n) {
                let weight = count * (self.all - self.documents.get(gram).copied().unwrap_or(0.0).max(1.0).ln());
                norms[n - 1] += weight * weight;
                weights[n - 1].insert(gram, weight);
            }
        }
        (weights, norms.map(f64::sqrt), words.len().saturating_sub(1) as f64)
    }

    /// The figure of one caption against its references.
    pub fn score(&self, caption: &[String], references: &[Vec<String>]) -> f64 {
        let (own, own_norm, own_length) = self.vector(caption);
        let mut score = 0.0;
        for reference in references {
            let (other, other_norm, other_length) = self.vector(reference);
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
    }
}

/// CIDEr-D of each caption, its n-grams weighted by the references at hand.
pub fn cider_d(pairs: &[Pair]) -> Vec<f64> {
    let cider = Cider::new(pairs.iter().map(|(_, references)| references.as_slice()));
    pairs.iter().map(|(caption, references)| cider.score(caption, references)).collect()
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

/// Words that mean the same, by WordNet's sets (Miller 1995).
pub struct Synonyms(HashMap<String, BTreeSet<(char, u32)>>);

impl Synonyms {
    /// Of a folder that holds WordNet's `index.noun`, `index.verb`, `index.adj`, `index.adv`, at any depth.
    pub fn open(folder: &Path) -> Result<Self> {
        let failed = |path: &Path, e: String| Error::File { path: path.to_owned(), reason: e };
        let mut known: HashMap<String, BTreeSet<(char, u32)>> = HashMap::new();
        let mut open = vec![folder.to_owned()];
        while let Some(place) = open.pop() {
            for entry in std::fs::read_dir(&place).map_err(|e| failed(&place, e.to_string()))? {
                let path = entry.map_err(|e| failed(&place, e.to_string()))?.path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
                if !["index.noun", "index.verb", "index.adj", "index.adv"].contains(&name.as_str()) {
                    continue;
                }
                let text = std::fs::read(&path).map_err(|e| failed(&path, e.to_string()))?;
                // Lines that begin with a space are the licence; others: word, part of speech, …, as many numbers of sets as it is in.
                for line in String::from_utf8_lossy(&text).lines().filter(|l| !l.starts_with(' ')) {
                    let fields: Vec<&str> = line.split_whitespace().collect();
                    let sets = fields.get(2).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
                    if let Some(kind) = fields.get(1).and_then(|k| k.chars().next())
                        && sets < fields.len()
                    {
                        let numbers = fields[fields.len() - sets..].iter().filter_map(|n| n.parse().ok());
                        known.entry(fields[0].to_owned()).or_default().extend(numbers.map(|n| (kind, n)));
                    }
                }
            }
        }
        if known.is_empty() {
            return Err(failed(folder, "no index.noun, index.verb, index.adj or index.adv of WordNet below it".into()));
        }
        Ok(Self(known))
    }

    /// Whether two words, or their stems, are in one set.
    fn same(&self, a: &str, b: &str) -> bool {
        let sets = |word: &str| self.0.get(word).or_else(|| self.0.get(stem(word)));
        sets(a).zip(sets(b)).is_some_and(|(a, b)| !a.is_disjoint(b))
    }
}

/// METEOR of exact words, stems and, where they are given, synonyms (α = 0.9, β = 3, γ = 0.5); the mean over captions of the best reference.
pub fn meteor(pairs: &[Pair], synonyms: Option<&Synonyms>) -> f64 {
    let one = |caption: &[String], reference: &[String]| -> f64 {
        // Each word meets the first free equal one, exact words before stems, stems before synonyms.
        let mut met: Vec<Option<usize>> = vec![None; caption.len()];
        let mut free = vec![true; reference.len()];
        for stage in 0..=2 {
            for (n, word) in caption.iter().enumerate() {
                if met[n].is_some() {
                    continue;
                }
                let same = |r: &String| match stage {
                    0 => r == word,
                    1 => stem(r) == stem(word),
                    _ => synonyms.is_some_and(|s| s.same(r, word)),
                };
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

/// What judges captions beside the words of the references.
#[derive(Clone, Copy, Default)]
pub struct Judges<'a> {
    /// A joint model of pictures and texts, for [`clip_score`].
    pub clip: Option<&'a Pretrained>,
    /// Words that mean the same, for [`meteor`].
    pub synonyms: Option<&'a Synonyms>,
}

/// Words put in, left out and taken for others on the shortest way from what was said to what was to be written down, over the words of the
/// latter, all rows together; of several references the nearest counts. In lower case, without punctuation.
pub fn word_error_rate(found: &[String], references: &[Vec<String>]) -> f64 {
    let words = |text: &String| mm_repr::text::word_tokens(text).collect::<Vec<_>>();
    let (mut wrong, mut all) = (0, 0);
    for (found, references) in found.iter().zip(references) {
        let found = words(found);
        let each = references.iter().map(words).map(|wanted| (steps(&found, &wanted), wanted.len()));
        if let Some((off, length)) = each.min() {
            (wrong, all) = (wrong + off, all + length);
        }
    }
    wrong as f64 / all.max(1) as f64
}

/// The distance of two lists (Levenshtein 1965).
fn steps(a: &[String], b: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (n, x) in a.iter().enumerate() {
        let mut before = row[0];
        row[0] = n + 1;
        for (m, y) in b.iter().enumerate() {
            let other = before + usize::from(x != y);
            before = row[m + 1];
            row[m + 1] = other.min(row[m] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

/// All of them by name, of captions and their references as texts.
pub fn captions(said: &[String], references: &[Vec<String>], synonyms: Option<&Synonyms>) -> Figures {
    let words = |texts: &Vec<String>| texts.iter().map(|t| caption_words(t)).collect::<Vec<_>>();
    let pairs: Vec<Pair> = said.iter().zip(references).map(|(s, r)| (caption_words(s), words(r))).collect();
    let mut out = Figures::new();
    for (n, value) in bleu(&pairs).into_iter().enumerate() {
        out.insert(format!("bleu{}", n + 1), value);
    }
    let cider = cider_d(&pairs);
    out.insert("cider_d".into(), cider.iter().sum::<f64>() / cider.len().max(1) as f64);
    out.insert("rouge_l".into(), rouge_l(&pairs));
    out.insert("meteor_exact_stem".into(), meteor(&pairs, None));
    if synonyms.is_some() {
        out.insert("meteor_exact_stem_synonym".into(), meteor(&pairs, synonyms));
    }
    out.insert("rows".into(), pairs.len() as f64);
    out
}

/// How well captions go with pictures by a joint model, with no reference (`clip_score`: 2.5 times the cosine, not below 0) and with those that
/// people wrote (`clip_score_with_references`: the harmonic mean of that and the cosine with the nearest of them), as `CLIPScore` (Hessel 2021).
pub fn clip_score(model: &Pretrained, pictures: &[Source], said: &[String], people: &[Vec<String>]) -> Result<Figures> {
    if model.contrastive_head.is_none() {
        let wanted = "wanted a model that puts pictures and texts into one space (CLIP, SigLIP)";
        return Err(Error::Config(format!("--clip: found a model of family {}, {wanted}", model.family)));
    }
    let text = |t: &String| Source::Text(format!("A photo depicts {t}"));
    let of = |modality: &Modality, sources: &[Source]| -> Result<Tensor> {
        Ok(model.embed(modality, sources, None)?.normalize()?)
    };
    let (mut alone, mut beside) = (0.0, 0.0);
    for ((picture, said), people) in pictures.chunks(32).zip(said.chunks(32)).zip(people.chunks(32)) {
        let seen = of(&Modality::IMAGE, picture)?;
        let told = of(&Modality::TEXT, &said.iter().map(text).collect::<Vec<_>>())?;
        let cosines: Vec<f64> = seen.mul(&told)?.sum_dim(&[1], false)?.to_dtype(DType::F64)?.to_vec()?;
        for (row, (cosine, people)) in cosines.iter().zip(people).enumerate() {
            let score = 2.5 * cosine.max(0.0);
            alone += score;
            if people.is_empty() {
                continue;
            }
            let known = of(&Modality::TEXT, &people.iter().map(text).collect::<Vec<_>>())?;
            let near = known.matmul(&told.select(0, row as i64)?.unsqueeze(1)?)?.max()?.to_f64()?.max(0.0);
            beside += if score + near > 0.0 { 2.0 * score * near / (score + near) } else { 0.0 };
        }
    }
    let count = said.len().max(1) as f64;
    Ok([("clip_score", alone / count), ("clip_score_with_references", beside / count)]
        .map(|(name, value)| (name.to_owned(), value))
        .into())
}

#[cfg(test)]
mod tests {
    use super::word_error_rate;

    #[test]
    fn errors_of_words_are_those_of_the_shortest_way_over_all_words() {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let rate = |said: &[&str], wanted: &[&[&str]]| {
            word_error_rate(&owned(said), &wanted.iter().map(|w| owned(w)).collect::<Vec<_>>())
        };
        // One put in, one left out, one taken for another; case and points do not count.
        assert_eq!(rate(&["The cat sat, down"], &[&["the cat sat"]]), 1.0 / 3.0);
        assert_eq!(rate(&["cat sat"], &[&["the cat sat"]]), 1.0 / 3.0);
        assert_eq!(rate(&["a cat sat", "x y"], &[&["the cat sat"], &["x"]]), 2.0 / 4.0);
        assert_eq!(rate(&[""], &[&["the cat"]]), 1.0);
        // The nearest of several.
        assert_eq!(rate(&["a dog"], &[&["the cat sat down", "a dog"]]), 0.0);
        assert_eq!(rate(&[], &[]), 0.0);
    }
}
