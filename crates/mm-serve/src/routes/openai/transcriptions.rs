//! `/v1/audio/transcriptions`.

use super::subtitles::{self, Format};
use crate::{
    engine::{Capability, Speech},
    error::{ApiError, Kind},
    media::file_source,
    routes::body::in_time,
    state::Shared,
};
use axum::{
    Json,
    extract::{Multipart, State, multipart::MultipartError},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use mm_core::{DecodedAudio, EncodedFile, Modality, Source};
use mm_data::decode::decode_audio_bytes;
use mm_reason::pretrained::Transcript;
use serde_json::json;
use utoipa::ToSchema;

/// The fields of the form.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form; its fields are read one by one")]
pub(crate) struct TranscriptionForm {
    /// The recording: WAV, MP3, Ogg, FLAC, M4A.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// The model; the first that transcribes when absent.
    model: Option<String>,
    /// The spoken language, as a code or name; detected when absent.
    language: Option<String>,
    /// `json`, `text`, `srt`, `vtt` or `verbose_json`.
    response_format: Option<String>,
    /// 0 takes the most likely token.
    temperature: Option<f64>,
}

/// The form as it was sent.
#[derive(Default)]
struct Form {
    file: Option<Vec<u8>>,
    model: Option<String>,
    language: Option<String>,
    format: Format,
    temperature: Option<f64>,
}

/// Transcribes speech.
#[utoipa::path(post, path = "/v1/audio/transcriptions", tag = "openai",
    request_body(content = TranscriptionForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The transcript in the format that was asked for", body = Object),
        (status = 400, description = "Not a recording that can be read"),
        (status = 404, description = "No such model"),
        (status = 413, description = "More than the server takes")
    )
)]
pub(crate) async fn transcriptions(State(state): State<Shared>, form: Multipart) -> Result<Response, ApiError> {
    let form = in_time(&state, read(form)).await??;
    let Some(file) = form.file else { return Err(ApiError::invalid("file", "none", "a recording")) };
    let Source::Bytes(file) = file_source(&state.limits, &Modality::AUDIO, file, "file")? else {
        return Err(ApiError::internal("an uploaded file is not bytes"));
    };
    let format = form.format;
    let options = TranscriptionOptions {
        language: form.language,
        temperature: form.temperature,
        timestamps: format.needs_timestamps(),
    };
    let transcript = transcribe(&state, form.model.as_deref(), (file, "file"), options).await?;
    Ok(respond(&transcript, format))
}

/// How speech is transcribed.
pub(crate) struct TranscriptionOptions {
    /// The spoken language; detected when absent.
    pub(crate) language: Option<String>,
    /// Sampled at this temperature; the most likely tokens when absent or 0.
    pub(crate) temperature: Option<f64>,
    pub(crate) timestamps: bool,
}

/// The transcript of an audio file, which errors name by its field of the request.
pub(crate) async fn transcribe(
    state: &Shared,
    model: Option<&str>,
    (file, param): (EncodedFile, &'static str),
    options: TranscriptionOptions,
) -> Result<Transcript, ApiError> {
    let (model, _) = state.pool.find(model, Capability::Transcribe)?;
    let max_seconds = state.limits.max_audio_seconds;
    let source = state.decode(move || decode(&file, param, max_seconds)).await?;
    let TranscriptionOptions { language, temperature, timestamps } = options;
    let temperature = temperature.filter(|temperature| *temperature > 0.0);
    model.transcribe(Speech { source, language, timestamps, temperature }).await
}

/// Decodes a recording once, so that its length can be checked before it is computed with.
fn decode(file: &EncodedFile, param: &str, max_seconds: f64) -> Result<Source, ApiError> {
    let bytes = file.read().map_err(|error| ApiError::from(error).with_param(param))?;
    let audio = decode_audio_bytes(&bytes, None).map_err(|error| ApiError::invalid(param, error, "a recording"))?;
    let seconds = audio.seconds();
    if seconds > max_seconds {
        return Err(ApiError::too_large(
            param,
            format!("{seconds:.0} s of audio"),
            format!("at most {max_seconds:.0} s"),
        ));
    }
    Ok(Source::Samples(DecodedAudio::new(audio.samples, audio.sample_rate)?))
}

async fn read(mut multipart: Multipart) -> Result<Form, ApiError> {
    let mut form = Form::default();
    while let Some(field) = multipart.next_field().await.map_err(rejected)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "file" {
            form.file = Some(field.bytes().await.map_err(rejected)?.to_vec());
            continue;
        }
        let text = field.text().await.map_err(rejected)?;
        match name.as_str() {
            "model" => form.model = Some(text),
            "language" => form.language = Some(text).filter(|text| !text.is_empty()),
            "response_format" => form.format = text.parse()?,
            "temperature" => {
                let value: Option<f64> = text.parse().ok().filter(|value| (0.0..=2.0).contains(value));
                form.temperature = Some(value.ok_or_else(|| ApiError::invalid("temperature", text, "0 to 2"))?);
            }
            "stream" if text == "true" => return Err(ApiError::invalid("stream", "true", "false")),
            // What only asks for more detail (timestamp_granularities[]) or helps other models (prompt) is accepted.
            _ => {}
        }
    }
    Ok(form)
}

fn rejected(error: MultipartError) -> ApiError {
    let kind = if error.status() == StatusCode::PAYLOAD_TOO_LARGE { Kind::TooLarge } else { Kind::Invalid };
    ApiError::new(kind, format!("the form cannot be read: {}", error.body_text()))
}

fn respond(transcript: &Transcript, format: Format) -> Response {
    let text = transcript.text.trim();
    let warnings: Vec<String> = transcript.warnings.iter().map(ToString::to_string).collect();
    match format {
        Format::Json => {
            Json(json!({"text": text, "warnings": warnings, "truncated": transcript.truncated})).into_response()
        }
        Format::VerboseJson => {
            let segment = |(id, segment): (usize, &mm_reason::pretrained::Segment)| json!({"id": id, "start": segment.start, "end": segment.end, "text": segment.text});
            let segments: Vec<_> = transcript.segments.iter().enumerate().map(segment).collect();
            let duration = transcript.segments.last().map_or(0.0, |segment| segment.end);
            let body = json!({
                "task": "transcribe", "text": text, "duration": duration, "segments": segments, "warnings": warnings,
                "truncated": transcript.truncated,
            });
            Json(body).into_response()
        }
        Format::Text => format!("{text}\n").into_response(),
        Format::Srt => subtitles::srt(&transcript.segments).into_response(),
        Format::Vtt => {
            ([(CONTENT_TYPE, "text/vtt; charset=utf-8")], subtitles::vtt(&transcript.segments)).into_response()
        }
    }
}
