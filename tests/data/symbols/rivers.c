/* A driver's worth of names, of our own: what tests of the PDB reader look up. How it was built: README.md. */

typedef unsigned char UCHAR;
typedef unsigned int ULONG;
typedef unsigned long long ULONG64;

typedef struct _LINK {
    struct _LINK *Next;
    struct _LINK *Before;
} LINK;

struct _UNKNOWN; /* never defined: stays a forward reference */

typedef union _DEPTH {
    ULONG64 Whole;
    struct {
        ULONG Low;
        ULONG High;
    };
} DEPTH;

typedef struct _RIVER {
    ULONG Length;
    UCHAR Frozen : 1;
    UCHAR Dammed : 2;
    UCHAR Name[15];
    LINK Links;
    struct _UNKNOWN *Source;
    union {
        ULONG64 Flow;
        void *Gauge;
    };
    DEPTH Depth;
    UCHAR Sediment[70000];
    ULONG Mouth; /* its offset takes four bytes in the file, Sediment's two */
} RIVER;

typedef enum _SEASON { Spring = 1, Summer, Autumn = 40000, Winter = -1 } SEASON;

RIVER Amazon;
ULONG64 Bridges[100];
const ULONG Gauges[8] = {1, 2, 3, 5, 8, 13, 21, 34};
SEASON Now = Summer;
static volatile ULONG64 Rain;
int _fltused = 0;

static __attribute__((noinline)) ULONG64 Evaporate(ULONG64 Amount) {
    Rain += Amount;
    return Rain / 7;
}

__declspec(dllexport) __attribute__((noinline)) ULONG64 FlowAt(RIVER *River, ULONG Place) {
    return River->Flow * Place + Evaporate(River->Length) + River->Mouth + River->Depth.High;
}

__attribute__((noinline)) ULONG64 CrossBridge(ULONG Number) {
    Bridges[Number % 100]++;
    return FlowAt(&Amazon, Number) + Gauges[Number % 8];
}

__declspec(dllexport) int Ford(void *Instance, ULONG Reason, void *Reserved) {
    if (Reason == (ULONG)Now)
        return (int)CrossBridge(Reason);
    return 1;
}
