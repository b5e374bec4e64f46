//! Networks that answer a question about a picture, trained here.
