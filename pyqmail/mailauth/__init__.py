"""Message authentication: DKIM signatures, and SPF, DKIM and DMARC of what arrives.

Two daemons do the work, so that neither keys nor heavy libraries are in a process that
speaks to a client: `signer` (dkimsignd) holds the keys and reads only what authenticated
users send; `verifier` (mailauthd) reads what strangers send and holds nothing. The filters
in `filters` pass them a message's descriptor and put the answer in front of the message.
"""
