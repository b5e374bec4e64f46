//! Limits of the process on memory and stack, so that an input that would exhaust them is a finding.

use std::alloc::{GlobalAlloc, Layout, System};

/// Maximum size of one allocation of Rust code in bytes: what a length of 32 bits can ask for in a library, as long as it
/// is not filled (libFuzzer limits the memory in use to 2 GiB). A length of 64 bits that nobody checked exceeds it.
pub const MAX_ALLOCATION: usize = 4 << 30;

/// The system's allocator, which fails above [`MAX_ALLOCATION`]: `try_reserve` returns an error, everything else aborts.
struct LimitedAllocator;

// SAFETY: every block comes from the system's allocator and goes back to it; a null pointer states that it failed.
unsafe impl GlobalAlloc for LimitedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: LimitedAllocator = LimitedAllocator;

/// Prepares the process of libFuzzer: a stack as small as that of a worker thread, and a second one for the handler of
/// signals, without which libFuzzer could not write the input of a stack overflow.
#[cfg(unix)]
pub fn prepare_process() {
    const STACK: libc::rlim_t = 2 << 20;
    const HANDLER_STACK: usize = 1 << 20;
    let handler_stack = Box::leak(vec![0u8; HANDLER_STACK].into_boxed_slice());
    // SAFETY: the calls read structs of this frame; the handler's stack is leaked, so it outlives the thread.
    unsafe {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit);
        limit.rlim_cur = STACK.min(limit.rlim_max);
        libc::setrlimit(libc::RLIMIT_STACK, &raw const limit);
        let stack = libc::stack_t { ss_sp: handler_stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: HANDLER_STACK };
        libc::sigaltstack(&raw const stack, std::ptr::null_mut());
        // libFuzzer keeps this flag when it installs its handler.
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = libc::SA_ONSTACK;
        libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut());
    }
}

/// Does nothing: other systems have no such limits.
#[cfg(not(unix))]
pub fn prepare_process() {}
