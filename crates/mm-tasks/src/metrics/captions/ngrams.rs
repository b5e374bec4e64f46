//! Metrics of n-grams and subsequences: BLEU, ROUGE-L and CIDEr-D, as COCO's evaluation computes them (*Microsoft COCO
//! Captions: Data Collection and Evaluation Server*, Chen et al., 2015, <https://arxiv.org/abs/1504.00325>).

use std::collections::{BTreeSet, HashMap};

/// A generated caption and the references of the same image, as tokens.
pub type CaptionPair = (Vec<String>, Vec<Vec<String>>);

type NgramCounts<'a> = HashMap<&'a [String], f64>;

fn ngram_counts(tokens: &[String], n: usize) -> NgramCounts<'_> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_insert(0.0) += 1.0;
    }
    counts
}

/// BLEU-1 to BLEU-4 of a corpus; the reference length is that of the reference nearest in length. Source: *BLEU: a
/// Method for Automatic Evaluation of Machine Translation* (Papineni et al., 2002,
/// <https://aclanthology.org/P02-1040/>).
pub fn bleu(pairs: &[CaptionPair]) -> [f64; 4] {
    let (mut total, mut matched) = ([0f64; 4], [0f64; 4]);
    let (mut caption_length, mut reference_length) = (0f64, 0f64);
    for (caption, references) in pairs {
        caption_length += caption.len() as f64;
        let nearest = references.iter().map(Vec::len).min_by_key(|l| (l.abs_diff(caption.len()), *l)).unwrap_or(0);
        reference_length += nearest as f64;
        for n in 1..=4 {
            let mut clip: NgramCounts<'_> = HashMap::new();
            for reference in references {
                for (ngram, count) in ngram_counts(reference, n) {
                    let greatest = clip.entry(ngram).or_insert(0.0);
                    *greatest = greatest.max(count);
                }
            }
            let own = ngram_counts(caption, n);
            total[n - 1] += (caption.len() + 1).saturating_sub(n) as f64;
            matched[n - 1] += own.iter().map(|(g, c)| c.min(clip.get(g).copied().unwrap_or(0.0))).sum::<f64>();
        }
    }
    // The constants of COCO's evaluation, which keep empty corpora finite.
    let (tiny, small) = (1e-15, 1e-9);
    let mut scores = [0f64; 4];
    let mut product = 1.0;
    for n in 0..4 {
        product *= (matched[n] + tiny) / (total[n] + small);
        scores[n] = product.powf(1.0 / (n + 1) as f64);
    }
    let ratio = (caption_length + tiny) / (reference_length + small);
    if ratio < 1.0 {
        let brevity_penalty = (1.0 - 1.0 / ratio).exp();
        scores.iter_mut().for_each(|s| *s *= brevity_penalty);
    }
    scores
}

/// Length of the longest common subsequence.
fn lcs_len(a: &[String], b: &[String]) -> usize {
    let mut row = vec![0usize; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (n, y) in b.iter().enumerate() {
            let above = row[n + 1];
            row[n + 1] = if x == y { diagonal + 1 } else { row[n + 1].max(row[n]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

/// ROUGE-L with β = 1.2, the mean over captions. Source: *ROUGE: A Package for Automatic Evaluation of Summaries* (Lin,
/// 2004, <https://aclanthology.org/W04-1013/>).
pub fn rouge_l(pairs: &[CaptionPair]) -> f64 {
    let score = |(caption, references): &CaptionPair| {
        let (mut precision, mut recall) = (0f64, 0f64);
        for reference in references {
            let lcs = lcs_len(reference, caption) as f64;
            // COCO's evaluation counts a caption without tokens as one empty token.
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
    pairs.iter().map(score).sum::<f64>() / pairs.len().max(1) as f64
}

/// CIDEr-D: cosine of TF-IDF vectors of n-grams, with a Gaussian penalty (σ = 6) on the difference in length. Source:
/// *CIDEr: Consensus-based Image Description Evaluation* (Vedantam et al., 2015, <https://arxiv.org/abs/1411.5726>).
pub struct Cider {
    document_frequency: HashMap<Vec<String>, f64>,
    log_documents: f64,
}

/// TF-IDF weights of a text's n-grams of each order, their norms, and the number of bigrams, which COCO's evaluation
/// takes as the length.
type TfIdf<'a> = ([HashMap<&'a [String], f64>; 4], [f64; 4], f64);

impl Cider {
    /// Computes the document frequencies of n-grams; the references of one image are one document.
    pub fn new<'a>(images: impl Iterator<Item = &'a [Vec<String>]>) -> Self {
        let (mut document_frequency, mut count) = (HashMap::<Vec<String>, f64>::new(), 0usize);
        for references in images {
            let unique: BTreeSet<&[String]> =
                references.iter().flat_map(|r| (1..=4).flat_map(move |n| r.windows(n))).collect();
            for ngram in unique {
                match document_frequency.get_mut(ngram) {
                    Some(n) => *n += 1.0,
                    None => drop(document_frequency.insert(ngram.to_vec(), 1.0)),
                }
            }
            count += 1;
        }
        Self { document_frequency, log_documents: (count as f64).ln() }
    }

    fn tf_idf<'a>(&self, tokens: &'a [String]) -> TfIdf<'a> {
        let mut weights: [HashMap<&[String], f64>; 4] = Default::default();
        let mut norms = [0f64; 4];
        for n in 1..=4 {
            for (ngram, count) in ngram_counts(tokens, n) {
                let frequency = self.document_frequency.get(ngram).copied().unwrap_or(0.0);
                let weight = count * (self.log_documents - frequency.max(1.0).ln());
                norms[n - 1] += weight * weight;
                weights[n - 1].insert(ngram, weight);
            }
        }
        (weights, norms.map(f64::sqrt), tokens.len().saturating_sub(1) as f64)
    }

    /// CIDEr-D of one caption against its references.
    pub fn score(&self, caption: &[String], references: &[Vec<String>]) -> f64 {
        let (own, own_norm, own_length) = self.tf_idf(caption);
        let mut score = 0.0;
        for reference in references {
            let (other, other_norm, other_length) = self.tf_idf(reference);
            let difference = own_length - other_length;
            for n in 0..4 {
                let dot: f64 = own[n]
                    .iter()
                    .map(|(ngram, weight)| {
                        let theirs = other[n].get(ngram).copied().unwrap_or(0.0);
                        weight.min(theirs) * theirs
                    })
                    .sum();
                let norms = own_norm[n] * other_norm[n];
                let cosine = if norms > 0.0 { dot / norms } else { dot };
                score += cosine * (-(difference * difference) / 72.0).exp();
            }
        }
        10.0 * score / 4.0 / references.len().max(1) as f64
    }
}

/// CIDEr-D of each caption, with document frequencies from the references of all pairs.
pub fn cider_d(pairs: &[CaptionPair]) -> Vec<f64> {
    let cider = Cider::new(pairs.iter().map(|(_, references)| references.as_slice()));
    pairs.iter().map(|(caption, references)| cider.score(caption, references)).collect()
}
