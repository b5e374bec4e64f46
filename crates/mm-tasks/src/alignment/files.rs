//! Arrays in files whose rows correspond.

use super::{
    FittedAlignment,
    data::{label_values, paired_features},
};
use crate::{
    Error, Result,
    embedding::{VectorRow, read_rows, rows_file},
};
use mm_align::PairedFeatures;
use mm_core::{DType, Device, Tensor};
use mm_data::read_npy;
use std::{collections::HashSet, path::Path};

/// The pairs of two arrays.
pub struct PairedArrays {
    /// The pairs in which both have a vector.
    pub pairs: PairedFeatures,
    /// Number of pairs left out: the vector of one of them is missing, a row of NaN.
    pub missing: usize,
}

/// Reads two arrays of features (.npy) whose rows correspond, and labels where there are any. Pairs in which a vector
/// is missing (a row of NaN, as `mm embed` writes for a value that is absent or cannot be read) are left out.
///
/// # Errors
/// When a file cannot be read, the files with the rows next to the arrays ([`rows_file`]) state other rows, the numbers
/// of rows differ, or no pair is complete.
pub fn read_paired_arrays(a: &Path, b: &Path, labels: Option<&Path>) -> Result<PairedArrays> {
    let (x, y) = (read_npy(a)?, read_npy(b)?);
    let rows = |file: &Path, array: &Tensor| read_rows(file, array.size(0).unwrap_or(0) as usize);
    if let (Some(first), Some(second)) = (rows(a, &x)?, rows(b, &y)?) {
        check_same_rows((a, &first), (b, &second))?;
    }
    let labels = labels.map(read_npy).transpose()?;
    let missing: HashSet<i64> = if x.rank() == 2 && y.rank() == 2 && x.size(0)? == y.size(0)? {
        missing_rows(&x)?.into_iter().chain(missing_rows(&y)?).collect()
    } else {
        HashSet::new()
    };
    if missing.is_empty() {
        return Ok(PairedArrays { pairs: paired_features(&x, &y, labels.as_ref())?, missing: 0 });
    }
    let total = x.size(0)?;
    let labels = labels.map(|l| label_values(&l, total)).transpose()?;
    let complete: Vec<i64> = (0..total).filter(|row| !missing.contains(row)).collect();
    if complete.is_empty() {
        let found = format!("{total} pairs, each with a missing vector (a row of NaN)");
        return Err(Error::invalid(
            format!("{} and {}", a.display(), b.display()),
            found,
            "pairs in which both have one",
        ));
    }
    let index = Tensor::from_slice(&complete)?;
    let mut pairs = paired_features(&x.index_select(0, &index)?, &y.index_select(0, &index)?, None)?;
    pairs.labels = labels.map(|l| complete.iter().map(|row| l[*row as usize]).collect());
    Ok(PairedArrays { pairs, missing: missing.len() })
}

/// Projects the array `file` of modality 0 (a) or 1 (b) into the shared space: float32 `[rows, dim]`, NaN for rows
/// whose vector is missing.
///
/// # Errors
/// When the array cannot be read or has another dimension.
pub fn project_array(fitted: &FittedAlignment, modality: usize, file: &Path) -> Result<Tensor> {
    let x = read_npy(file)?;
    let rows = x.size(0)?;
    let missing: HashSet<i64> = missing_rows(&x)?.into_iter().collect();
    let complete: Vec<i64> = (0..rows).filter(|row| !missing.contains(row)).collect();
    let projected = fitted.project(modality, &x.index_select(0, &Tensor::from_slice(&complete)?)?)?;
    let projected = projected.to_dtype(DType::F32)?;
    if missing.is_empty() {
        return Ok(projected);
    }
    // Rows that are missing are read from the last row of the table.
    let missing_row = Tensor::full(&[1, projected.size(1)?], f64::NAN, DType::F32, Device::Cpu)?;
    let table = Tensor::cat(&[&projected, &missing_row], 0)?;
    let mut next = 0..;
    let index = |row| if missing.contains(&row) { complete.len() as i64 } else { next.next().unwrap_or(0) };
    let indices: Vec<i64> = (0..rows).map(index).collect();
    Ok(table.index_select(0, &Tensor::from_slice(&indices)?)?)
}

/// The rows of `[rows, dim]` that hold NaN alone.
fn missing_rows(x: &Tensor) -> Result<Vec<i64>> {
    if x.rank() != 2 || x.numel() == 0 {
        return Ok(Vec::new());
    }
    let finite = x.isfinite()?.to_dtype(DType::F32)?.sum_dim(&[1], false)?.to_vec::<f32>()?;
    let mut out = Vec::new();
    for (row, count) in finite.into_iter().enumerate() {
        if count == 0.0 && x.narrow(0, row as i64, 1)?.to_vec::<f64>()?.iter().all(|v| v.is_nan()) {
            out.push(row as i64);
        }
    }
    Ok(out)
}

fn check_same_rows((a, first): (&Path, &[VectorRow]), (b, second): (&Path, &[VectorRow])) -> Result<()> {
    let describe = |row: Option<&VectorRow>| match row {
        Some(VectorRow { id, value: Some(value) }) if *value > 0 => format!("value {} of id `{id}`", value + 1),
        Some(VectorRow { id, .. }) => format!("id `{id}`"),
        None => "nothing".to_owned(),
    };
    let same = |x: &VectorRow, y: &VectorRow| x.id == y.id && x.value.unwrap_or(0) == y.value.unwrap_or(0);
    let count = first.len().max(second.len());
    let differs = |n: &usize| !matches!((first.get(*n), second.get(*n)), (Some(x), Some(y)) if same(x, y));
    let Some(n) = (0..count).find(differs) else { return Ok(()) };
    let found = format!(
        "arrays of different rows: row {} is {} in {} ({} rows) and {} in {} ({} rows)",
        n + 1,
        describe(first.get(n)),
        rows_file(a).display(),
        first.len(),
        describe(second.get(n)),
        rows_file(b).display(),
        second.len()
    );
    let hint =
        "embed both from one table, with at most one value a row; delete the rows files if the rows do correspond";
    Err(Error::invalid(format!("{} and {}", a.display(), b.display()), found, "the same rows in the same order")
        .with_hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::{SearchOptions, methods, search};
    use mm_core::seed::manual_seed;
    use mm_data::write_npy;

    /// Two arrays of 40 rows in which row 3 of the first and row 38 of the second are missing.
    fn arrays(folder: &Path) -> [std::path::PathBuf; 2] {
        manual_seed(2);
        let a = Tensor::randn(&[40, 3], DType::F32, Device::Cpu).unwrap().to_vec::<f32>().unwrap();
        let files = ["a.npy", "b.npy"].map(|name| folder.join(name));
        for (file, missing_row, scale) in [(&files[0], 3, 1.0), (&files[1], 38, -2.0)] {
            let mut values: Vec<f32> = a.iter().map(|v| v * scale).collect();
            values[missing_row * 3..(missing_row + 1) * 3].fill(f32::NAN);
            write_npy(file, &Tensor::from_vec(&values, &[40, 3]).unwrap()).unwrap();
        }
        files
    }

    fn write_ids(array: &Path, ids: impl Iterator<Item = usize>) {
        let lines: String = ids.map(|id| format!("{{\"id\": \"{id}\", \"row\": {id}, \"value\": 0}}\n")).collect();
        std::fs::write(rows_file(array), lines).unwrap();
    }

    #[test]
    fn pairs_with_a_missing_vector_are_left_out_and_keep_their_rows_in_projections() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = arrays(folder.path());
        let found = read_paired_arrays(&a, &b, None).unwrap();
        assert_eq!((found.missing, found.pairs.rows().unwrap()), (2, 38));
        let options = SearchOptions { dim: Some(2), regularization: Some(1e-6), seed: 0 };
        let (fitted, _) = search(&methods(), "cca", &found.pairs, &options).unwrap();
        let projected = [project_array(&fitted, 0, &a).unwrap(), project_array(&fitted, 1, &b).unwrap()];
        let [x, y] = projected.map(|p| p.to_vec::<f32>().unwrap());
        for row in 0..40 {
            let (x, y) = (&x[row * 2..row * 2 + 2], &y[row * 2..row * 2 + 2]);
            assert_eq!((x[0].is_nan(), y[0].is_nan()), (row == 3, row == 38), "row {row}");
            // The second array is a multiple of the first: both are projected onto one point.
            assert!(row == 3 || row == 38 || (x[0] * y[0] + x[1] * y[1] - 1.0).abs() < 1e-3, "{row}: {x:?} {y:?}");
        }
    }

    #[test]
    fn arrays_of_other_rows_are_refused_with_the_first_difference() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = arrays(folder.path());
        let text = |a: &Path, b: &Path| read_paired_arrays(a, b, None).map(drop).unwrap_err().to_string();
        write_ids(&a, 0..40);
        assert_eq!(read_paired_arrays(&a, &b, None).unwrap().missing, 2, "one file alone cannot be compared");
        write_ids(&b, (0..2).chain(3..41));
        assert!(
            text(&a, &b).contains("row 3 is id `2` in") && text(&a, &b).contains("and id `3` in"),
            "{}",
            text(&a, &b)
        );
        write_ids(&b, 0..39);
        assert!(text(&a, &b).contains("lists 39 rows") && text(&a, &b).contains("has 40"), "{}", text(&a, &b));
        write_ids(&b, 0..40);
        assert_eq!(read_paired_arrays(&a, &b, None).unwrap().pairs.rows().unwrap(), 38);
    }

    #[test]
    fn a_row_of_some_nan_is_no_missing_vector() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = arrays(folder.path());
        let mut values = read_npy(&a).unwrap().to_vec::<f32>().unwrap();
        values[0] = f32::NAN;
        write_npy(&a, &Tensor::from_vec(&values, &[40, 3]).unwrap()).unwrap();
        assert!(read_paired_arrays(&a, &b, None).map(drop).unwrap_err().to_string().contains("finite"));
    }
}
