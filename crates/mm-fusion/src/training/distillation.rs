//! Knowledge distillation, for instance from unimodal teachers.

use crate::Result;
use mm_core::Tensor;

/// Distillation loss, a scalar: the Kullback–Leibler divergence between the teacher's and the student's class
/// distributions, both from logits `[rows, classes]` divided by `temperature`; mean over rows, times the squared
/// temperature. No gradient reaches the teacher.
///
/// From *Distilling the Knowledge in a Neural Network* (Hinton, Vinyals and Dean, 2015,
/// <https://arxiv.org/abs/1503.02531>).
///
/// # Errors
/// When the shapes differ.
pub fn distillation(student: &Tensor, teacher_logits: &Tensor, temperature: f64) -> Result<Tensor> {
    let teacher = teacher_logits.detach()?.mul_scalar(1.0 / temperature)?;
    let (p, log_p) = (teacher.softmax(1)?, teacher.log_softmax(1)?);
    let log_q = student.mul_scalar(1.0 / temperature)?.log_softmax(1)?;
    Ok(p.mul(&log_p.sub(&log_q)?)?.sum_dim(&[1], false)?.mean()?.mul_scalar(temperature * temperature)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_have_no_loss() {
        let a = Tensor::from_vec(&[1f32, 2.0, 0.5, -1.0], &[2, 2]).unwrap();
        assert!(distillation(&a, &a, 2.0).unwrap().to_f64().unwrap().abs() < 1e-6);
        let b = a.neg().unwrap();
        assert!(distillation(&b, &a, 2.0).unwrap().to_f64().unwrap() > 0.1);
    }
}
