import threading

from univip_mm.io.scratch import scratch


def test_scratch_returns_memory_of_each_thread_again():
    first = scratch('test', 100)
    assert first.nbytes == 100
    first[:] = 7
    assert (scratch('test', 60) == 7).all()
    assert scratch('test', 300).nbytes == 300
    others = []
    thread = threading.Thread(
        target=lambda: others.append(scratch('test', 300)))
    thread.start()
    thread.join()
    scratch('test', 300)[:] = 1
    others[0][:] = 2
    assert (scratch('test', 300) == 1).all()


def test_scratch_does_not_keep_much_memory():
    small = scratch('limit', 10)
    small[:] = 3
    assert scratch('limit', 2**26).nbytes == 2**26
    assert (scratch('limit', 10) == 3).all()
