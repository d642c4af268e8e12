import os

# vLLM in this process, on a processor shared with others; read when it is imported.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Threads bound to a core starve where other processes use it.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
# Its log would go to what standard output was when an engine was first made: that of a command
# under test, closed after it.
os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
