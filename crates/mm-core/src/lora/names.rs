//! Which tensor of a checkpoint an adapter means by a name.

/// The tensor of a checkpoint that an adapter means by a name: the one of that name, else the only one that shares the
/// longest suffix with it (libraries nest models: `model.layers…`, `language_model.model.layers…`), with the layers of
/// vision transformers named as in transformers 5 or as before.
pub(super) fn nearest_name(names: &[String], wanted: &str) -> Option<String> {
    if let Some(found) = by_suffix(names, wanted) {
        return Some(names[found].clone());
    }
    let version_5: Vec<String> = names.iter().map(|name| version_5_name(name)).collect();
    by_suffix(&version_5, &version_5_name(wanted)).map(|found| names[found].clone())
}

/// transformers 5 renamed the layers of vision transformers in memory, where adapters take their names from, but writes
/// checkpoints with the names of before.
fn version_5_name(name: &str) -> String {
    let renamed = [
        ("encoder.layer.", "layers."),
        ("attention.attention.query", "attention.q_proj"),
        ("attention.attention.key", "attention.k_proj"),
        ("attention.attention.value", "attention.v_proj"),
        ("attention.output.dense", "attention.o_proj"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("encoder.layers.", "layers."),
    ];
    renamed.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// Index of the name, or of the only one that agrees most with it at the end.
fn by_suffix(names: &[String], wanted: &str) -> Option<usize> {
    if let Some(found) = names.iter().position(|n| n == wanted) {
        return Some(found);
    }
    // Number of parts that agree at the end (at least the layer's index and what follows it), then anywhere.
    let parts: Vec<&str> = wanted.split('.').collect();
    let agreement = |n: &str| {
        let end = n.rsplit('.').zip(parts.iter().rev()).take_while(|(a, b)| a == *b).count();
        (end, n.split('.').filter(|p| parts.contains(p)).count())
    };
    let most = names.iter().map(|n| agreement(n)).max()?;
    let mut best = names.iter().enumerate().filter(|(_, n)| agreement(n) == most);
    let (found, _) = best.next().filter(|_| most.0 >= 3.min(parts.len()))?;
    best.next().is_none().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_nested_models() {
        let names: Vec<String> =
            ["language_model.model.layers.0.mlp.up.weight", "vision.layers.0.mlp.up.weight", "head.weight"]
                .map(Into::into)
                .into();
        let find = |wanted: &str| nearest_name(&names, wanted);
        assert_eq!(find("head.weight").as_deref(), Some("head.weight"));
        assert_eq!(find("model.language_model.layers.0.mlp.up.weight").as_deref(), Some(names[0].as_str()));
        assert_eq!(find("model.vision.layers.0.mlp.up.weight").as_deref(), Some(names[1].as_str()));
        assert_eq!(find("base.layers.0.mlp.up.weight"), None, "two names agree equally well");
        assert_eq!(find("other.weight"), None);
    }

    #[test]
    fn layers_of_vision_transformers_are_found_under_old_and_new_names() {
        let pairs = [
            ("vit.encoder.layer.1.attention.attention.query.weight", "vit.layers.1.attention.q_proj.weight"),
            ("vit.encoder.layer.1.attention.output.dense.weight", "vit.layers.1.attention.o_proj.weight"),
            ("vit.encoder.layer.1.intermediate.dense.weight", "vit.layers.1.mlp.fc1.weight"),
            ("vit.encoder.layer.1.output.dense.weight", "vit.layers.1.mlp.fc2.weight"),
        ];
        let (old, new): (Vec<String>, Vec<String>) =
            pairs.iter().map(|(old, new)| ((*old).to_owned(), (*new).to_owned())).unzip();
        for (index, (o, n)) in pairs.iter().enumerate() {
            assert_eq!(nearest_name(&old, n).as_ref(), Some(&old[index]));
            assert_eq!(nearest_name(&new, o).as_ref(), Some(&new[index]));
            // The adapter of a bare encoder, for a checkpoint with a head.
            assert_eq!(nearest_name(&old, n.strip_prefix("vit.").unwrap()).as_ref(), Some(&old[index]));
        }
    }
}
