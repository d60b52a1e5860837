"""What the exit status of a local delivery means: qmail-lspawn's table.

0, 100 and 111 are qmail-local's own; the others come from qmail-lspawn's child before
it becomes qmail-local, and from qmail-getpw. The numbers and the texts are netqmail's.
"""

SUCCESS = 0
USAGE = 112  # what cannot be: arguments, or ids that could not be taken on
ROOT = 113
NFS = 115
NO_ALIAS = 116
CDB = 117
SYSTEM = 118
MEMORY = 119
EXEC_SOFT = 120
EXEC_GETPW = 121
EXEC_HARD = 126

CRASHED = b"Zqmail-local crashed.\n"

TEXTS = {
    CDB: b"ZTrouble reading users/cdb in qmail-lspawn.\n",
    MEMORY: b"ZOut of memory in qmail-lspawn.\n",
    SYSTEM: b"ZTemporary failure in qmail-lspawn.\n",
    NO_ALIAS: b"ZUnable to find alias user!\n",
    ROOT: b"ZNot allowed to perform deliveries as root.\n",
    USAGE: b"ZInternal qmail-lspawn bug.\n",
    NFS: b"ZNFS failure in qmail-local.\n",
    EXEC_HARD: b"DUnable to run qmail-local.\n",
    EXEC_SOFT: b"ZUnable to run qmail-local.\n",
    EXEC_GETPW: b"ZUnable to run qmail-getpw.\n",
}

DEFERRALS = (111, 71, 74, 75)


def report(wait_status: int, output: bytes) -> bytes:
    """Return the report on a delivery: K, Z or D, and text for people.

    Args:
        wait_status: of the delivery's process, as wait(2) has it.
        output: what it wrote.
    """
    if wait_status & 127:
        return CRASHED
    status = wait_status >> 8
    if status in TEXTS:
        return TEXTS[status]
    said = output.split(b"\0", 1)[0]
    if status == SUCCESS:
        return b"K" + said
    return (b"Z" if status in DEFERRALS else b"D") + said
