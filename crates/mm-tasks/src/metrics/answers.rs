//! How good short answers are, as the VQA challenge counts (Antol 2015): an answer is right as far as three of the ten people who were asked
//! gave it, after both were written in one way.

use super::Figures;
use std::collections::{BTreeMap, HashMap};

/// What becomes of numbers in words.
const NUMBERS: [(&str, &str); 12] = [
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

/// Signs that go, or leave a space.
const SIGNS: &str = ";/[]\"{}()=+\\_-><@`,?!";

/// Contracted words whose apostrophes people leave away: a word that lacks one of them is meant.
const CONTRACTED: &str = "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've \
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've o'clock oughtn't \
    'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's \
    something'd something'd've something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't \
    we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's \
    won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've";

/// Words that are whole without what they lack.
fn whole(word: &str) -> String {
    if word == "somebody'd" {
        return "somebodyd".into();
    }
    let lacks = |full: &str| {
        let marks = full.match_indices('\'');
        marks
            .into_iter()
            .any(|(at, _)| word.len() + 1 == full.len() && word == format!("{}{}", &full[..at], &full[at + 1..]))
    };
    CONTRACTED.split_whitespace().find(|full| lacks(full)).unwrap_or(word).to_owned()
}

/// An answer as the challenge compares it: lower case, no articles, numbers in digits, no punctuation but in numbers, apostrophes restored.
pub fn normalize_answer(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let thousands = letters.windows(3).any(|w| w[0].is_ascii_digit() && w[1] == ',' && w[2].is_ascii_digit());
    let mut out = text.to_owned();
    for sign in SIGNS.chars() {
        let loose = text.contains(&format!("{sign} ")) || text.contains(&format!(" {sign}"));
        out = out.replace(sign, if loose || thousands { "" } else { " " });
    }
    // Full stops go, but for those before a digit.
    let letters: Vec<char> = out.chars().collect();
    let kept =
        |(n, c): (usize, &char)| (*c != '.' || letters.get(n + 1).is_some_and(char::is_ascii_digit)).then_some(*c);
    let out: String = letters.iter().enumerate().filter_map(kept).collect();
    let words = out.to_lowercase();
    let words = words.split_whitespace().map(|w| NUMBERS.iter().find(|(n, _)| *n == w).map_or(w, |(_, digit)| digit));
    words.filter(|w| !["a", "an", "the"].contains(w)).map(whole).collect::<Vec<_>>().join(" ")
}

/// How right an answer is, 0 to 1, against the answers of people: the mean over leaving each of them out of a third of how many of the others
/// said the same, at most 1. Where all said the same, nothing is rewritten but case. Against a single answer it is right or not.
pub fn vqa_accuracy(answer: &str, people: &[String]) -> f64 {
    let plain = |t: &str| t.replace(['\n', '\t'], " ").trim().to_owned();
    let (mut answer, mut people) = (plain(answer), people.iter().map(|p| plain(p)).collect::<Vec<_>>());
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

/// Answers without looking: to each question what it is answered most often in training, to one that is new what is answered most often at all.
/// What a network must beat to have seen anything (Goyal 2017).
#[derive(Debug, Default)]
pub struct Blind<'a> {
    counts: HashMap<Option<&'a str>, HashMap<&'a str, usize>>,
}

impl<'a> Blind<'a> {
    /// Of questions and answers.
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

    /// What it answers to a question, or to any.
    pub fn answer(&self, question: Option<&str>) -> &'a str {
        // Of answers that are as frequent, the first in the alphabet.
        let most = |known: &HashMap<&'a str, usize>| {
            known.iter().max_by_key(|(a, n)| (**n, std::cmp::Reverse(**a))).map(|(a, _)| *a)
        };
        let known = self.counts.get(&question).or_else(|| self.counts.get(&None));
        known.and_then(most).unwrap_or_default()
    }
}

/// The column of the answers of several people, parted by `|`.
pub const PEOPLE: &str = "answers";

/// One answer, and what it is held against.
pub struct AnsweredRow<'a> {
    /// What was answered.
    pub said: &'a str,
    /// The right answer, where it is known.
    pub wanted: Option<&'a str>,
    /// What was asked, where it is a question.
    pub question: Option<&'a str>,
    /// The row's cells.
    pub cells: &'a BTreeMap<String, String>,
}

/// Figures of answers: `vqa_accuracy` where people's answers are there (the column `answers`), accuracy and it by `answer_type` and
/// `question_type` where those are, and, of questions, two of balanced subsets, in which a question's wording tells nothing of its answer (Goyal 2017):
/// `balanced questions`, those with several right answers among the rows, each answer of a question counting alike; `both of a pair`, rows
/// that share a `pair`, right where all of them are.
pub fn answer_figures<'a>(rows: impl Iterator<Item = AnsweredRow<'a>>) -> Figures {
    let mut sums: BTreeMap<String, (f64, usize)> = BTreeMap::new();
    let mut add = |name: String, right: f64| {
        let sum = sums.entry(name).or_default();
        *sum = (sum.0 + right, sum.1 + 1);
    };
    let mut questions: BTreeMap<&str, BTreeMap<String, (f64, usize)>> = BTreeMap::new();
    let mut pairs: BTreeMap<&str, (bool, usize)> = BTreeMap::new();
    for AnsweredRow { said, wanted, question, cells } in rows {
        let kinds: Vec<&String> = ["answer_type", "question_type"].iter().filter_map(|k| cells.get(*k)).collect();
        if let Some(wanted) = wanted {
            let wanted = normalize_answer(wanted);
            let right = f64::from(u8::from(normalize_answer(said) == wanted));
            kinds.iter().for_each(|kind| add(format!("accuracy: {kind}"), right));
            if let Some(question) = question {
                if let Some(pair) = cells.get("pair") {
                    let pair = pairs.entry(pair).or_insert((true, 0));
                    *pair = (pair.0 && right == 1.0, pair.1 + 1);
                }
                let sum = questions.entry(question).or_default().entry(wanted).or_default();
                *sum = (sum.0 + right, sum.1 + 1);
            }
        }
        if let Some(people) = cells.get(PEOPLE) {
            let people: Vec<String> = people.split('|').map(ToOwned::to_owned).collect();
            let right = vqa_accuracy(said, &people);
            kinds.iter().for_each(|kind| add(format!("vqa_accuracy: {kind}"), right));
            add("vqa_accuracy".to_owned(), right);
        }
    }
    for answers in questions.values().filter(|a| a.len() > 1) {
        let each = answers.values().map(|(sum, count)| sum / *count as f64);
        add("accuracy: balanced questions".into(), each.sum::<f64>() / answers.len() as f64);
    }
    for (right, _) in pairs.values().filter(|(_, rows)| *rows > 1) {
        add("accuracy: both of a pair".into(), f64::from(u8::from(*right)));
    }
    sums.into_iter().map(|(name, (sum, count))| (name, sum / count as f64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_written_in_one_way() {
        for (said, wanted) in [
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
            assert_eq!(normalize_answer(said), wanted, "{said}");
        }
    }

    #[test]
    fn three_of_ten_people_make_an_answer_right() {
        let people = |yes: usize| (0..10).map(|n| if n < yes { "Yes." } else { "no" }.to_owned()).collect::<Vec<_>>();
        // By hand: with three of ten, leaving one of them out leaves two thirds, leaving another out leaves all.
        assert!((vqa_accuracy("yes", &people(3)) - (3.0 * 2.0 / 3.0 + 7.0) / 10.0).abs() < 1e-12);
        assert!((vqa_accuracy("yes", &people(1)) - 9.0 / 30.0).abs() < 1e-12);
        assert!((vqa_accuracy("yes", &people(4)) - 1.0).abs() < 1e-12);
        assert!(vqa_accuracy("maybe", &people(5)).abs() < 1e-12);
        assert!((vqa_accuracy("red", &["Red".to_owned()]) - 1.0).abs() < 1e-12);
    }
    #[test]
    fn what_a_question_favours_is_worth_nothing_where_it_is_balanced() {
        let cells = |pair: &str| BTreeMap::from([("pair".to_owned(), pair.to_owned())]);
        let rows = [("a", "yes", "1"), ("a", "yes", "2"), ("a", "yes", "3"), ("a", "no", "1"), ("b", "2", "4")];
        let all: Vec<_> = rows.iter().map(|(question, wanted, pair)| (*question, *wanted, cells(pair))).collect();
        let figures = |say: &dyn Fn(&str, &str) -> &'static str| {
            answer_figures(all.iter().map(|(question, wanted, cells)| AnsweredRow {
                said: say(question, wanted),
                wanted: Some(wanted),
                question: Some(question),
                cells,
            }))
        };
        // What is favoured: three of four right, half of the two answers, never both of a pair; a question of one answer does not count.
        let blind = figures(&|_, _| "yes");
        assert_eq!((blind["accuracy: balanced questions"], blind["accuracy: both of a pair"]), (0.5, 0.0));
        let right = figures(&|_, wanted| if wanted == "no" { "no" } else { "yes" });
        assert_eq!((right["accuracy: balanced questions"], right["accuracy: both of a pair"]), (1.0, 1.0));
    }
}
