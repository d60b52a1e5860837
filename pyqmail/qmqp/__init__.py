"""QMQP (cr.yp.to/proto/qmqp.html): hand a message and its envelope to another queue."""
