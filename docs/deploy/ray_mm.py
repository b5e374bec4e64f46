"""Embeds a Ray data set with mm: each actor owns one `mm embed --stdio`, to which it hands Arrow record batches.

    python ray_mm.py MODEL INPUT.parquet OUTPUT [--actors N] [--column image=photo]

Packages: ray[data] pyarrow. `mm` must be on the PATH of every node (or named by --mm).
"""

import argparse
import subprocess

import pyarrow as pa
import pyarrow.ipc


class MmEmbed:
    """Adds the columns MODALITY_embedding and MODALITY_error; the rows keep their order."""

    def __init__(self, mm, model, options):
        # libtorch takes as many threads as the actor has CPUs, which Ray says in OMP_NUM_THREADS.
        command = [mm, "embed", "--stdio", "--quiet", "--model", model, *options]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.schema = self.writer = self.reader = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self.writer is None:
            self.schema = batch.schema
            self.writer = pa.ipc.new_stream(self.process.stdin, self.schema)
        rows = batch.cast(self.schema).combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], self.schema)]
        try:
            self.writer.write_batch(rows[0])
            self.process.stdin.flush()
            if self.reader is None:
                self.reader = pa.ipc.open_stream(self.process.stdout)
            vectors = self.reader.read_next_batch()
        except (OSError, pa.ArrowInvalid, StopIteration) as error:
            status = self.process.wait()
            raise RuntimeError(f"mm ended with status {status}; the log of this actor has its message") from error
        for name, column in zip(vectors.schema.names, vectors.columns):
            batch = batch.append_column(name, column)
        return batch

    def __del__(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    import ray

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("input", help="a Parquet file or folder")
    parser.add_argument("output", help="a folder for Parquet files")
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--cpus", type=float, default=1, help="of each actor")
    parser.add_argument("--gpus", type=float, default=0, help="of each actor")
    parser.add_argument("--rows", type=int, default=256, help="of a batch")
    parser.add_argument("--mm", default="mm")
    parser.add_argument("--column", action="append", default=[], help="MODALITY=COLUMN")
    arguments = parser.parse_args()
    options = [text for column in arguments.column for text in ("--column", column)]
    data = ray.data.read_parquet(arguments.input).map_batches(
        MmEmbed,
        fn_constructor_args=(arguments.mm, arguments.model, options),
        batch_format="pyarrow",
        batch_size=arguments.rows,
        num_cpus=arguments.cpus,
        num_gpus=arguments.gpus,
        concurrency=arguments.actors,
    )
    data.write_parquet(arguments.output)


if __name__ == "__main__":
    main()
