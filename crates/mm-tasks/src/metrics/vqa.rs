//! Metrics of short answers of the VQA challenge: an answer is scored by how many annotators gave it, after
//! normalization. Source: *VQA: Visual Question Answering* (Antol et al., 2015, <https://arxiv.org/abs/1505.00468>).

use super::metric::{Metric, Metrics};
use mm_core::cells::Record;
use std::collections::{BTreeMap, HashMap};

/// Number words become digits.
const NUMBER_WORDS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// Punctuation that is removed, or replaced by a space.
const PUNCTUATION: &str = ";/[]\"{}()=+\\_-><@`,?!";

/// Contractions whose apostrophe is restored where it is missing.
const CONTRACTIONS: &str = "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've \
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't \
    'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's \
    something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't \
    we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's \
    won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've";

/// Restores a missing apostrophe: `dont` → `don't`.
fn restore_contraction(word: &str) -> String {
    if word == "somebody'd" {
        // As in the challenge's evaluation code.
        return "somebodyd".into();
    }
    let lacks_one_apostrophe = |full: &str| {
        let mut apostrophes = full.match_indices('\'');
        apostrophes.any(|(at, _)| word.len() + 1 == full.len() && word == format!("{}{}", &full[..at], &full[at + 1..]))
    };
    CONTRACTIONS.split_whitespace().find(|full| lacks_one_apostrophe(full)).unwrap_or(word).to_owned()
}

/// Normalizes an answer as the challenge's evaluation does: lower case, no articles, numbers as digits, punctuation
/// only inside numbers, apostrophes restored.
///
/// ```
/// assert_eq!(mm_tasks::metrics::normalize_answer("The two dogs."), "2 dogs");
/// ```
pub fn normalize_answer(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let thousands = chars.windows(3).any(|w| w[0].is_ascii_digit() && w[1] == ',' && w[2].is_ascii_digit());
    let mut out = text.to_owned();
    for sign in PUNCTUATION.chars() {
        let next_to_space = text.contains(&format!("{sign} ")) || text.contains(&format!(" {sign}"));
        out = out.replace(sign, if next_to_space || thousands { "" } else { " " });
    }
    // Full stops are removed, except before a digit.
    let chars: Vec<char> = out.chars().collect();
    let keep = |(n, c): (usize, &char)| (*c != '.' || chars.get(n + 1).is_some_and(char::is_ascii_digit)).then_some(*c);
    let out: String = chars.iter().enumerate().filter_map(keep).collect();
    let lower = out.to_lowercase();
    let words =
        lower.split_whitespace().map(|w| NUMBER_WORDS.iter().find(|(n, _)| *n == w).map_or(w, |(_, digit)| digit));
    words.filter(|w| !["a", "an", "the"].contains(w)).map(restore_contraction).collect::<Vec<_>>().join(" ")
}

/// VQA accuracy of an answer against those of several annotators, in [0, 1]: the mean, over leaving out each of them,
/// of min(1, n / 3) where n of the others gave the same answer. Where all annotators agree, only case is normalized.
/// Against a single answer it is 0 or 1.
pub fn vqa_accuracy(answer: &str, people: &[String]) -> f64 {
    let strip = |t: &str| t.replace(['\n', '\t'], " ").trim().to_owned();
    let (mut answer, mut people) = (strip(answer), people.iter().map(|p| strip(p)).collect::<Vec<_>>());
    if people.iter().any(|p| *p != people[0]) {
        answer = normalize_answer(&answer);
        people.iter_mut().for_each(|p| *p = normalize_answer(p));
    }
    let same: Vec<bool> = people.iter().map(|p| p.to_lowercase() == answer.to_lowercase()).collect();
    if same.len() < 2 {
        return f64::from(u8::from(same.first().copied().unwrap_or(false)));
    }
    let all = same.iter().filter(|s| **s).count();
    let each = same.iter().map(|s| ((all - usize::from(*s)) as f64 / 3.0).min(1.0));
    each.sum::<f64>() / same.len() as f64
}

/// The language prior: answers each question with its most frequent training answer, an unseen question with the most
/// frequent answer of all. A model that is not better than it does not use the image. Source: *Making the V in VQA
/// Matter* (Goyal et al., 2017, <https://arxiv.org/abs/1612.00837>).
#[derive(Debug, Default)]
pub struct PriorBaseline<'a> {
    counts: HashMap<Option<&'a str>, HashMap<&'a str, usize>>,
}

impl<'a> PriorBaseline<'a> {
    /// Counts the answers of each question, `None` where a row has none.
    pub fn new(pairs: impl Iterator<Item = (Option<&'a str>, &'a str)>) -> Self {
        let mut counts: HashMap<Option<&str>, HashMap<&str, usize>> = HashMap::new();
        for (question, answer) in pairs {
            *counts.entry(None).or_default().entry(answer).or_default() += 1;
            if question.is_some() {
                *counts.entry(question).or_default().entry(answer).or_default() += 1;
            }
        }
        Self { counts }
    }

    /// The most frequent answer to a question, or of all; of equally frequent ones the first in the alphabet.
    pub fn answer(&self, question: Option<&str>) -> &'a str {
        let most_frequent = |counts: &HashMap<&'a str, usize>| {
            counts.iter().max_by_key(|(a, n)| (**n, std::cmp::Reverse(**a))).map(|(a, _)| *a)
        };
        let counts = self.counts.get(&question).or_else(|| self.counts.get(&None));
        counts.and_then(most_frequent).unwrap_or_default()
    }
}

/// The column with the answers of several annotators, separated by `|`.
pub const HUMAN_ANSWERS_COLUMN: &str = "answers";

/// One predicted answer and what it is compared with.
pub struct AnsweredRow<'a> {
    /// The predicted answer.
    pub predicted: &'a str,
    /// The correct answer, where it is known.
    pub label: Option<&'a str>,
    /// The question, where the row has one.
    pub question: Option<&'a str>,
    /// The row's cells.
    pub cells: &'a Record,
}

/// Sums by id and scope, for means.
#[derive(Default)]
struct Means(BTreeMap<(&'static str, Option<String>), (f64, usize)>);

impl Means {
    fn add(&mut self, id: &'static str, scope: Option<&str>, value: f64) {
        let (sum, count) = self.0.entry((id, scope.map(ToOwned::to_owned))).or_default();
        (*sum, *count) = (*sum + value, *count + 1);
    }

    fn metrics(self) -> Metrics {
        let mean = |((id, scope), (sum, count)): ((&str, Option<String>), (f64, usize))| Metric {
            scope,
            ..Metric::new(id, sum / count as f64)
        };
        self.0.into_iter().map(mean).collect()
    }
}

/// Metrics of answers beyond accuracy:
///
/// - `vqa_accuracy`, where rows have annotators' answers (the column [`HUMAN_ANSWERS_COLUMN`]);
/// - both accuracies for each value of the columns `answer_type` and `question_type`, as their scope;
/// - two on balanced subsets of questions, whose answer does not follow from the wording (Goyal et al., 2017):
///   `balanced_question_accuracy` on questions with several correct answers among the rows, each answer weighted
///   equally, and `pair_accuracy`, the share of pairs (rows that share a `pair`) of which all rows are correct.
pub fn answer_metrics<'a>(rows: impl Iterator<Item = AnsweredRow<'a>>) -> Metrics {
    let mut means = Means::default();
    let mut questions: BTreeMap<&str, BTreeMap<String, (f64, usize)>> = BTreeMap::new();
    let mut pairs: BTreeMap<&str, (bool, usize)> = BTreeMap::new();
    for AnsweredRow { predicted, label, question, cells } in rows {
        let types: Vec<&str> = ["answer_type", "question_type"].iter().filter_map(|k| cells.get(k)).collect();
        if let Some(label) = label {
            let label = normalize_answer(label);
            let right = f64::from(u8::from(normalize_answer(predicted) == label));
            types.iter().for_each(|t| means.add("accuracy", Some(t), right));
            if let Some(question) = question {
                if let Some(pair) = cells.get("pair") {
                    let (all_right, count) = pairs.entry(pair).or_insert((true, 0));
                    (*all_right, *count) = (*all_right && right == 1.0, *count + 1);
                }
                let (sum, count) = questions.entry(question).or_default().entry(label).or_default();
                (*sum, *count) = (*sum + right, *count + 1);
            }
        }
        if let Some(people) = cells.get(HUMAN_ANSWERS_COLUMN) {
            let people: Vec<String> = people.split('|').map(ToOwned::to_owned).collect();
            let value = vqa_accuracy(predicted, &people);
            types.iter().for_each(|t| means.add("vqa_accuracy", Some(t), value));
            means.add("vqa_accuracy", None, value);
        }
    }
    for answers in questions.values().filter(|a| a.len() > 1) {
        let each = answers.values().map(|(sum, count)| sum / *count as f64);
        means.add("balanced_question_accuracy", None, each.sum::<f64>() / answers.len() as f64);
    }
    for (all_right, _) in pairs.values().filter(|(_, rows)| *rows > 1) {
        means.add("pair_accuracy", None, f64::from(u8::from(*all_right)));
    }
    means.metrics()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalized_as_the_challenge_does() {
        for (answer, expected) in [
            ("The Dog.", "dog"),
            ("two", "2"),
            ("None", "0"),
            ("dont know", "don't know"),
            ("couldnt've", "couldn't've"),
            ("yall'll", "y'all'll"),
            ("1,000", "1000"),
            ("red/green", "red green"),
            ("yes, sir", "yes sir"),
            ("10.5 m.", "10.5 m"),
            ("shed", "shed"),
            ("well-known", "well known"),
            ("an apple a day", "apple day"),
        ] {
            assert_eq!(normalize_answer(answer), expected, "{answer}");
        }
    }

    #[test]
    fn vqa_accuracy_is_full_with_three_agreeing_people() {
        let people = |yes: usize| (0..10).map(|n| if n < yes { "Yes." } else { "no" }.to_owned()).collect::<Vec<_>>();
        // With three of ten: leaving out one of them leaves two thirds, leaving out another leaves all.
        assert!((vqa_accuracy("yes", &people(3)) - (3.0 * 2.0 / 3.0 + 7.0) / 10.0).abs() < 1e-12);
        assert!((vqa_accuracy("yes", &people(1)) - 9.0 / 30.0).abs() < 1e-12);
        assert!((vqa_accuracy("yes", &people(4)) - 1.0).abs() < 1e-12);
        assert!(vqa_accuracy("maybe", &people(5)).abs() < 1e-12);
        assert!((vqa_accuracy("red", &["Red".to_owned()]) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_constant_answer_gains_nothing_on_balanced_questions() {
        let cells = |pair: &str| Record::from_iter([("pair", pair)]);
        let rows = [("a", "yes", "1"), ("a", "yes", "2"), ("a", "yes", "3"), ("a", "no", "1"), ("b", "2", "4")];
        let all: Vec<_> = rows.iter().map(|(question, label, pair)| (*question, *label, cells(pair))).collect();
        let metrics = |predict: &dyn Fn(&str, &str) -> &'static str| {
            let found = answer_metrics(all.iter().map(|(question, label, cells)| AnsweredRow {
                predicted: predict(question, label),
                label: Some(label),
                question: Some(question),
                cells,
            }));
            (found.get("balanced_question_accuracy").unwrap(), found.get("pair_accuracy").unwrap())
        };
        // Three of four right, but half of the two answers and never both of a pair; a question with one answer does
        // not count.
        assert_eq!(metrics(&|_, _| "yes"), (0.5, 0.0));
        assert_eq!(metrics(&|_, label| if label == "no" { "no" } else { "yes" }), (1.0, 1.0));
    }
}
