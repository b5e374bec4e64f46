//! `mm align`, `mm diagnose` and `mm audit`.

use crate::{
    common::{Workspace, mm, refused},
    json, json_lines, ok,
};

#[test]
fn arrays_are_aligned_and_diagnosed() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    // Two views of the same two values a row, and the quadrant that they lie in as the label.
    let (mut a, mut b, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = mm_core::seed::Rng::new(&[3]);
    for _ in 0..80 {
        let (x, y) = (random.uniform_range(-1.0, 1.0), random.uniform_range(-1.0, 1.0));
        let mut noise = || random.uniform_range(-0.1, 0.1);
        a.extend([x + noise(), y + noise(), x - y + noise()]);
        b.extend([y - x + noise(), 2.0 * x + noise(), noise(), y + noise()]);
        labels.push(i64::from(x > 0.0) + 2 * i64::from(y > 0.0));
    }
    let array =
        |values: &[f64], width: i64| mm_core::Tensor::from_vec(values, &[values.len() as i64 / width, width]).unwrap();
    mm_data::write_npy(&folder.join("a.npy"), &array(&a, 3)).unwrap();
    mm_data::write_npy(&folder.join("b.npy"), &array(&b, 4)).unwrap();
    let mut y = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<i8', 'fortran_order': False, 'shape': (80,), }".to_vec();
    y.resize(127, b' ');
    y.push(b'\n');
    y.extend(labels.iter().flat_map(|l| l.to_le_bytes()));
    workspace.write("y.npy", &y);
    let methods = json_lines(&mm(&["align", "--list-methods", "--json"], folder));
    let names: Vec<&str> = methods.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert!(names.len() > 12);
    for name in names.into_iter().chain(["auto"]) {
        let align = [
            "align",
            "--method",
            name,
            "--a",
            "a.npy",
            "--b",
            "b.npy",
            "--labels",
            "y.npy",
            "--json",
            "--threads",
            "1",
        ];
        let found = json(&mm(&align, folder));
        let metrics = found["metrics"].as_array().unwrap();
        for scope in ["a_to_b", "b_to_a"] {
            // Eight rows in four classes are held out: every method must be above chance.
            let map = metrics.iter().find(|m| m["id"] == "mean_average_precision" && m["scope"] == scope).unwrap();
            assert!(map["value"].as_f64().unwrap() > map["baselines"]["chance"].as_f64().unwrap(), "{name}: {found}");
        }
        assert!(found["dim"].as_i64().unwrap() >= 1 && found["regularization"].is_f64(), "{name}: {found}");
    }
    let few = ["align", "--method", "procrustes", "--num-pairs", "12", "--a", "a.npy", "--b", "b.npy", "--json"];
    let found = json(&mm(&few, folder));
    assert_eq!(found["rows"]["train"], 12, "{found}");
    let cca = ["align", "--method", "cca", "--dim", "2", "--regularization", "0.01", "--a", "a.npy", "--b", "b.npy"];
    ok(&mm(&[&cca[..], &["--out-a", "p.npy", "--out-b", "q.npy", "--out", "saved"]].concat(), folder));
    assert_eq!(mm_data::read_npy(&folder.join("p.npy")).unwrap().shape(), [80, 2]);
    assert!(folder.join("saved/align.safetensors").exists() && folder.join("saved/align.json").exists());
    let found = json(&mm(&["diagnose", "--a", "p.npy", "--b", "q.npy", "--report", "d.html", "--json"], folder));
    assert_eq!((found["rows"].as_i64(), found["corrections"].as_array().unwrap().len()), (Some(80), 5));
    assert!(std::fs::read_to_string(folder.join("d.html")).unwrap().contains("Corrections"));

    mm_data::write_npy(&folder.join("short.npy"), &array(&b[..40], 4)).unwrap();
    let mut broken = a.clone();
    broken[7] = f64::NAN;
    mm_data::write_npy(&folder.join("nan.npy"), &array(&broken, 3)).unwrap();
    workspace.write("cut.npy", &y[..300]);
    let bad: [(&[&str], &str); 10] = [
        (&["--a", "a.npy", "--b", "b.npy", "--num-pairs", "2"], "expected 4 to 72"),
        (&["--a", "a.npy", "--b", "short.npy"], "80 and 10 rows"),
        (&["--a", "nan.npy", "--b", "b.npy"], "row 2, column 1"),
        (&["--a", "a.npy", "--b", "y.npy"], "expected float32 or float64"),
        (&["--a", "cut.npy", "--b", "b.npy"], "the file is truncated"),
        (&["--a", "a.npy", "--b", "b.npy", "--labels", "a.npy"], "expected int64"),
        (&["--a", "a.npy", "--b", "b.npy", "--method", "procrusts"], "did you mean `procrustes"),
        (&["--a", "a.npy", "--b", "b.npy", "--method", "semantic_matching"], "needs labels"),
        (&["--a", "a.npy", "--b", "b.npy", "--method", "cca", "--regularization", "0.1", "--dim", "9"], "1 to 3"),
        (&["--a", "a.npy"], "--b"),
    ];
    for (more, wanted) in bad {
        refused(&[&["align"][..], more].concat(), folder, &[wanted]);
    }
    refused(&["diagnose", "--a", "a.npy", "--b", "b.npy"], folder, &["same dimension"]);
}

#[test]
fn pairs_are_audited_by_a_run() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    // One image cannot be read; the run that scores the pairs takes both modalities.
    workspace.write("1.png", b"not an image");
    let config = "task = \"representation\"\n[data]\nmanifest = \"data.jsonl\"\ncolumns = { modalities = { image = \"image\", text = \"text\" } }\n\
        [inputs.image]\nkind = \"image\"\nimage_size = 8\n[inputs.text]\nkind = \"bag_of_words\"\nmin_df = 1\n[model]\nkind = \"acmr\"\nlabel_weight = 0.0\ntriplet_weight = 0.0\npair_weight = 1.0\nembed_dim = 4\n[train]\nepochs = 2\n";
    workspace.write("acmr.toml", config);
    ok(&mm(&["train", "acmr.toml", "--out", "runs/acmr"], folder));
    let audit = [
        "audit",
        "--data",
        "data.jsonl",
        "--model",
        "runs/acmr",
        "--out",
        "audit.jsonl",
        "--report",
        "audit.html",
        "--json",
    ];
    let found = json(&mm(&audit, folder));
    assert_eq!(found["unreadable"].as_i64(), Some(1), "{found}");
    let first: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(folder.join("audit.jsonl")).unwrap().lines().next().unwrap())
            .unwrap();
    assert!(first["problems"][0]["detail"].as_str().unwrap().contains("1.png"), "{first}");
    refused(
        &["audit", "--data", "data.jsonl", "--model", "runs/acmr", "--modality", "image"],
        folder,
        &["expected two"],
    );
    refused(&["audit", "--data", "data.jsonl", "--model", "words"], folder, &["embeds one modality"]);
}
