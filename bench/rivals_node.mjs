// Prints what node-llama-cpp's `inspect estimate` computes for a file: bytes of the model and of a context on the CPU.
// Arguments: the folder that node-llama-cpp is installed in, file, context tokens, cache type, load mode.
import {pathToFileURL} from "node:url";

const [folder, path, contextTokens, cacheType, loadMode] = process.argv.slice(2);
const entry = pathToFileURL(`${folder}/node_modules/node-llama-cpp/dist/index.js`);
const {getLlama, readGgufFileInfo, GgufInsights, GgmlType} = await import(entry);
const llama = await getLlama({gpu: false, logLevel: "error", build: "never"});
const insights = await GgufInsights.from(await readGgufFileInfo(path), llama);
const useMmap = loadMode === "mmap";
const model = await insights.estimateModelResourceRequirementsV2({gpuLayers: 0, useMmap});
const context = await insights.estimateContextResourceRequirementsV2({
    contextSize: Number(contextTokens), modelGpuLayers: 0, batchSize: 512, sequences: 1, flashAttention: "auto",
    kvCacheKeyType: GgmlType[cacheType], kvCacheValueType: GgmlType[cacheType], useMmap
});
console.log(JSON.stringify({model: model.cpuRam, context: context.cpuRam}));
process.exit(0);
