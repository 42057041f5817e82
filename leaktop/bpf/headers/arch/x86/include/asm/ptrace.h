/* struct pt_regs of x86-64 as a BPF program sees it (arch/x86/include/asm/ptrace.h): the order is
 * the one in which the kernel pushes registers, so it is an interface. */
#ifndef LEAKTOP_ASM_PTRACE_H
#define LEAKTOP_ASM_PTRACE_H

struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;	/* saved by the callee */
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;	/* saved by the caller */
	unsigned long orig_ax;
	unsigned long ip, cs, flags, sp, ss;	/* pushed by the processor */
};

/* Whether these registers of user space were saved at a system call, rather than at an exception, for
 * which the kernel puts -1 there (arch/x86/entry/entry_64.S, idtentry_body; entry_64_fred.S). */
#define IN_SYSTEM_CALL(regs) ((long)(regs)->orig_ax != -1)

/* Whether that is one that gives a process addresses: mmap, brk or mremap
 * (arch/x86/entry/syscalls/syscall_64.tbl). */
#define IN_MAPPING_CALL(regs) \
	((regs)->orig_ax == 9 || (regs)->orig_ax == 12 || (regs)->orig_ax == 25)

/* Offsets in struct ucontext, in bytes (arch/x86/include/uapi/asm/ucontext.h, sigcontext.h). */
#define UCONTEXT_R12 72		/* r12, r13, r14, r15 */
#define UCONTEXT_BP 120
#define UCONTEXT_BX 128
#define UCONTEXT_SP 160
#define UCONTEXT_IP 168

#endif
