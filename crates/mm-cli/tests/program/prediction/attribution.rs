//! Attributions in reports.

use super::{assert_attributions_are_complete, mm};
use crate::{datasets::bits, ok};

#[test]
fn attributions_of_an_utterance_in_the_context_of_its_video_are_complete() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let mut text = String::new();
    for row in 0..240usize {
        let (good, long) = (bits(row) & 1 == 1, bits(row) >> 1 & 1 == 1);
        let start = if long { "well then I must say" } else { "so" };
        let (adjective, label) = if good { ("superb", "glad") } else { ("awful", "sad") };
        text += &format!(
            "{{\"id\":\"{row}\",\"video\":\"v{}\",\"at\":{},\"text\":\"{start} it was {adjective}\",\"mood\":\"{label}\"}}\n",
            row / 4,
            row % 4
        );
    }
    std::fs::write(folder.join("m.jsonl"), text).unwrap();
    let config = "task = \"prediction\"\nlabel = \"mood\"\n[data]\nmanifest = \"m.jsonl\"\n\
                  [data.columns]\nitem = \"video\"\norder = \"at\"\nmodalities = { text = \"text\" }\n\
                  [data.split]\ngroup = \"video\"\ntest = 0.2\n[loader]\nbatch_size = 4\n\
                  [inputs.text]\nencoder = { kind = \"lstm\", embedding_dim = 16, hidden_dim = 24 }\n\
                  [context]\nkind = \"lstm\"\nhidden_dim = 16\n[fusion]\ndim = 24\noperator = { kind = \"concat\" }\n\
                  [train]\nepochs = 12\n[train.optimizer]\nlr = 1e-2\n";
    std::fs::write(folder.join("c.toml"), config).unwrap();
    ok(&mm(&["train", "c.toml", "--out", "run"], folder));
    ok(&mm(&["report", "--model", "run", "--out", "report.html"], folder));
    let is_highlighted = |html: &str| html.contains("superb") && html.contains("awful");
    assert_attributions_are_complete(&folder.join("report.html"), is_highlighted);
}
