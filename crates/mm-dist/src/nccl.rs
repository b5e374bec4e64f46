//! The library with NCCL, `libmm_nccl.so`, which `cargo xtask nccl` compiles from `nccl.cpp` against a libtorch with CUDA.
//! It is opened where processes train on GPUs, after libtorch's CUDA library.

use crate::{Error, Result, backend};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    ptr::NonNull,
};

/// Its file.
const FILE: &str = "libmm_nccl.so";
/// The variable that names its file.
const VARIABLE: &str = "MM_NCCL_LIBRARY";
/// What to do where it is missing.
const BUILD: &str = "build it with `cargo xtask nccl` in a clone of mm, or train with --device cpu";

/// `mm_nccl_backend` of `nccl.cpp`: store, rank, number of ranks, timeout in milliseconds, index of the GPU, name of the group,
/// text of an error.
pub(crate) type CreateBackend =
    unsafe extern "C" fn(*mut c_void, c_int, c_int, i64, c_int, *const c_char, *mut *mut c_char) -> *mut c_void;

/// The library, which stays loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nccl {
    /// Connects a group of processes.
    pub(crate) create: CreateBackend,
}

impl Nccl {
    /// Opens the library of `MM_NCCL_LIBRARY`, else that of the program.
    pub(crate) fn open() -> Result<Self> {
        let places = places(std::env::var_os(VARIABLE).map(PathBuf::from), std::env::current_exe().ok().as_deref());
        if let Some(path) = places.iter().find(|path| path.exists()) {
            return Self::open_file(path, &backend::torch_version());
        }
        let searched: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
        Err(Error::Nccl {
            found: format!("no {}", searched.join(", no ")),
            expected: format!(
                "{FILE}, through which several processes train on GPUs, at one of these places ({VARIABLE} names another); \
                 {BUILD}"
            ),
        })
    }

    fn open_file(path: &Path, torch_version: &str) -> Result<Self> {
        let refused = |found: String, expected: &str| Error::Nccl {
            found: format!("{} {found}", path.display()),
            expected: format!("{expected}; {BUILD}"),
        };
        let library = Library::open(path).map_err(|reason| {
            refused(format!("that cannot be opened ({reason})"), "a library for the libtorch of this program")
        })?;
        let symbol = |name: &CStr| {
            let missing = || refused(format!("without {}", name.to_string_lossy()), "one that this version of mm made");
            library.symbol(name).ok_or_else(missing)
        };
        let (version, create) = (symbol(c"mm_nccl_torch_version")?, symbol(c"mm_nccl_backend")?);
        // SAFETY: the functions of nccl.cpp with these names have these types; the first returns a constant.
        let (version, create) = unsafe {
            let version: unsafe extern "C" fn() -> *const c_char = std::mem::transmute(version.as_ptr());
            let create: CreateBackend = std::mem::transmute(create.as_ptr());
            (CStr::from_ptr(version()).to_string_lossy().into_owned(), create)
        };
        if version != torch_version {
            let expected = format!("one for {torch_version}, the version that this program computes with");
            return Err(refused(format!("for libtorch {version}"), &expected));
        }
        Ok(Self { create })
    }
}

/// Where the library may be: where the variable says, else in the folder of the program, in that of the libraries of an
/// archive (`bin/mm`, `lib/`) and in that of `cargo xtask nccl` (`target/release/mm`, `target/nccl/`).
fn places(variable: Option<PathBuf>, program: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = variable.filter(|path| !path.as_os_str().is_empty()) {
        // Without a folder the loader would look for it elsewhere.
        return vec![std::path::absolute(&path).unwrap_or(path)];
    }
    let program = program.map(|program| program.canonicalize().unwrap_or_else(|_| program.to_owned()));
    let Some(folder) = program.as_deref().and_then(Path::parent) else { return vec![PathBuf::from(FILE)] };
    let above = folder.parent().unwrap_or(folder);
    [folder.to_owned(), above.join("lib"), above.join("nccl")].map(|folder| folder.join(FILE)).to_vec()
}

/// A loaded library, which is never unloaded: libtorch keeps objects with code of it.
struct Library(NonNull<c_void>);

impl Library {
    fn open(path: &Path) -> Result<Self, String> {
        let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| "its path has a zero byte".to_owned())?;
        // SAFETY: the path ends in zero; what the library runs when it is loaded are the initializers of C++. The text of an
        // error belongs to this thread until its next call of these functions.
        unsafe {
            NonNull::new(libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL)).map(Self).ok_or_else(|| {
                let text = libc::dlerror();
                if text.is_null() {
                    "no reason given".into()
                } else {
                    CStr::from_ptr(text).to_string_lossy().into_owned()
                }
            })
        }
    }

    fn symbol(&self, name: &CStr) -> Option<NonNull<c_void>> {
        // SAFETY: the library is loaded, the name ends in zero.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A library of this C code; none without a C compiler.
    fn compiled(folder: &Path, code: &str) -> Option<PathBuf> {
        let (source, library) = (folder.join("fake.c"), folder.join(FILE));
        std::fs::write(&source, code).unwrap();
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("skipped: no C compiler (cc)");
            return None;
        }
        Some(library)
    }

    fn refusal(path: &Path) -> String {
        Nccl::open_file(path, "2.11.0").unwrap_err().to_string()
    }

    #[test]
    fn a_library_for_another_libtorch_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let functions =
            "const char *mm_nccl_torch_version(void) { return \"2.10.0\"; }\nvoid *mm_nccl_backend(void) { return 0; }";
        let Some(library) = compiled(folder.path(), functions) else { return };
        assert_eq!(
            refusal(&library),
            format!(
                "NCCL: found {} for libtorch 2.10.0, expected one for 2.11.0, the version that this program computes with; \
                 build it with `cargo xtask nccl` in a clone of mm, or train with --device cpu",
                library.display()
            )
        );
        Nccl::open_file(&library, "2.10.0").unwrap();
    }

    #[test]
    fn what_is_no_library_of_mm_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.so");
        std::fs::write(&text, "text").unwrap();
        let refused = refusal(&text);
        assert!(
            refused.contains("text.so that cannot be opened (") && refused.contains("cargo xtask nccl"),
            "{refused}"
        );
        let Some(library) = compiled(folder.path(), "int other(void) { return 0; }") else { return };
        let refused = refusal(&library);
        assert!(
            refused.contains("without mm_nccl_torch_version, expected one that this version of mm made"),
            "{refused}"
        );
    }

    #[test]
    fn the_library_is_searched_where_the_variable_says_else_near_the_program() {
        let at = |variable: Option<&str>| places(variable.map(PathBuf::from), Some(Path::new("/none/release/mm")));
        assert_eq!(at(Some("/a/b.so")), [PathBuf::from("/a/b.so")]);
        let near = ["/none/release", "/none/lib", "/none/nccl"].map(|folder| Path::new(folder).join(FILE));
        assert_eq!((at(None), at(Some(""))), (near.to_vec(), near.to_vec()));
        assert_eq!(places(None, None), [PathBuf::from(FILE)]);
    }
}
