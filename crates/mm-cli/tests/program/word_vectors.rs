//! `mm words`.

use crate::{
    common::{Workspace, mm, refused},
    json, ok,
};

#[test]
fn word_vectors_are_trained_queried_and_evaluated() {
    let workspace = Workspace::new();
    let mut corpus = String::new();
    for i in 0..600 {
        corpus += ["cat purrs softly indoors\n", "dog barks loudly outdoors\n"][i % 2];
    }
    std::fs::write(workspace.path().join("corpus.txt"), corpus).unwrap();
    let train = [
        "words",
        "train",
        "--data",
        "corpus.txt",
        "--out",
        "w.txt",
        "--vector-size",
        "12",
        "--threads",
        "1",
        "--sample",
        "0",
        "--json",
    ];
    let trained = json(&mm(&train, workspace.path()));
    assert_eq!(trained["words"], 8);
    let similar = ok(&mm(&["words", "similar", "--model", "w.txt", "--word", "cat", "--k", "3"], workspace.path()));
    assert!(["purrs", "softly", "indoors"].iter().all(|w| similar.contains(w)), "{similar}");
    std::fs::write(
        workspace.path().join("pairs.tsv"),
        "# pairs\ncat\tpurrs\t9\nCAT\tbarks\t1\ndog\tbarks\t8\ncat\tzebra\t5\n",
    )
    .unwrap();
    let evaluation =
        json(&mm(&["words", "eval", "--model", "w.txt", "--pairs", "pairs.tsv", "--json"], workspace.path()));
    assert_eq!((&evaluation["pairs"], &evaluation["out_of_vocabulary"]), (&3.into(), &1.into()));
    assert!(evaluation["metrics"][0]["value"].as_f64().unwrap() >= 0.5, "{evaluation}");
    refused(&["words", "similar", "--model", "w.txt", "--word", "cats"], workspace.path(), &["did you mean `cat`"]);
    refused(&["words", "train", "--data", "nowhere.txt", "--out", "x.bin"], workspace.path(), &["nowhere.txt"]);
    refused(
        &["words", "similar", "--model", "corpus.txt", "--word", "cat"],
        workspace.path(),
        &["corpus.txt", "two integers"],
    );
    std::fs::write(workspace.path().join("empty.txt"), "").unwrap();
    refused(&["words", "train", "--data", "empty.txt", "--out", "x.bin"], workspace.path(), &["0 words"]);
}
