/* Macros that other headers define before rp.h may be included: <windows.h> and its relatives, <complex.h>,
   <termios.h>, <sys/sysmacros.h>, <curses.h>, compilers in their own dialects. No expression survives one. */
#ifndef HOSTILE_H
#define HOSTILE_H
#define HOSTILE 0 hostile
#ifdef _WIN32
#include <windows.h>
#else

/* <windows.h>, <windef.h>, <rpcndr.h>, <objbase.h> */
#define far HOSTILE
#define near HOSTILE
#define huge HOSTILE
#define pascal HOSTILE
#define cdecl HOSTILE
#define small HOSTILE
#define hyper HOSTILE
#define interface HOSTILE
#define min(a, b) HOSTILE
#define max(a, b) HOSTILE
#define IN HOSTILE
#define OUT HOSTILE
#define OPTIONAL HOSTILE
#define OPAQUE HOSTILE
#define CONST HOSTILE
#define VOID HOSTILE
#define ERROR HOSTILE
#define DELETE HOSTILE
#define STRICT HOSTILE
#define TRANSPARENT HOSTILE
#define RELATIVE HOSTILE
#define ABSOLUTE HOSTILE
#define DIFFERENCE HOSTILE
#define INFINITE HOSTILE
#define IGNORE HOSTILE

/* compilers in a dialect of their own, and the names of machines */
#undef unix
#undef linux
#undef i386
#define unix HOSTILE
#define linux HOSTILE
#define i386 HOSTILE
#define sun HOSTILE
#define mips HOSTILE
#define vax HOSTILE

/* <complex.h>, <termios.h>, <sys/sysmacros.h>, <curses.h>, <X11/X.h>, <arpa/inet.h>, <elf.h> and programs' own */
#undef I
#define I HOSTILE
#define complex HOSTILE
#define imaginary HOSTILE
#define B0 HOSTILE
#define ECHO HOSTILE
#define major(x) HOSTILE
#define minor(x) HOSTILE
#define move(y, x) HOSTILE
#define clear() HOSTILE
#define erase() HOSTILE
#define filter() HOSTILE
#define box(a, b, c) HOSTILE
#define Bool HOSTILE
#define None HOSTILE
#define Status HOSTILE
#define Success HOSTILE
#define check(x) HOSTILE
#define verify(x) HOSTILE
#define require(x, y) HOSTILE
#define emit HOSTILE
#define signals HOSTILE
#define foreach HOSTILE
#define forever HOSTILE
#define A HOSTILE
#define B HOSTILE
#define C HOSTILE
#define D HOSTILE
#define E HOSTILE
#define F HOSTILE
#define H HOSTILE
#define K HOSTILE
#define L HOSTILE
#define M HOSTILE
#define N HOSTILE
#define P HOSTILE
#define R HOSTILE
#define S HOSTILE
#define T HOSTILE
#define U HOSTILE
#define V HOSTILE
#define W HOSTILE
#define X HOSTILE
#define Y HOSTILE
#define Z HOSTILE
#define PI HOSTILE
#define MIN(a, b) HOSTILE
#define MAX(a, b) HOSTILE
#define ABS(x) HOSTILE
#define FMA HOSTILE
#define AVX HOSTILE
#define AVX2 HOSTILE
#define AVX512 HOSTILE
#define NEON HOSTILE
#define FLOAT HOSTILE
#define DOUBLE HOSTILE
#define REAL HOSTILE
#define THREADS HOSTILE
#define STATIC HOSTILE
#define INLINE HOSTILE
#define TRACE HOSTILE
#define ASSERT(x) HOSTILE
#endif
#endif
